"""Where units for object stores are built: a node's temporary folder, which several users and runs share."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from coat.manifests.errors import RunError
from coat.manifests.processes import this_process
from coat.pipeline.store import builds

REMOTE = "s3://bucket/store/level/abc"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(builds, "cleaned", set())
    return builds.builds_folder(REMOTE)


def test_each_user_has_a_folder_under_tmpdir(tmp_path: Path) -> None:
    code = f"from coat.pipeline.store.builds import builds_folder; print(builds_folder({REMOTE!r}))"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(tmp_path / f"coat-building-{os.getuid()}")


def test_the_first_build_removes_what_killed_workers_left(folder: Path) -> None:
    folder.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = folder / f"{socket.gethostname()}+{ended.pid}+u-1+x"
    living = folder / f"{this_process()}+u-2+x"
    for build in (dead, living):
        (build / "frames.zarr").mkdir(parents=True)
    mine = builds.new_build(REMOTE, "u-3")
    assert mine.parent == folder
    assert sorted(p.name for p in folder.iterdir()) == sorted([living.name, mine.name])


def test_a_new_folder_is_the_users_alone(folder: Path) -> None:
    builds.new_build(REMOTE, "u-1")
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_one_line(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(RunError, match=r"^[^\n]*belongs to another user; set TMPDIR[^\n]*$"):
        builds.new_build(REMOTE, "u-1")
