"""What would break our own Ray before it starts: a long TMPDIR, and `uv run`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coat.manifests import RunError
from coat.pipeline.cluster.ray_connection import ROOM_BYTES, session_folder, under_uv_run, worker_environment
from tests.chaos.helpers import command, events
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_runs import ROOT


def long_folder(tmp_path: Path) -> Path:
    folder = tmp_path / ("a-long-name-" * 8)
    folder.mkdir()
    return folder


def test_a_long_tmpdir_gets_a_short_folder_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * (ROOM_BYTES - 5))
    assert session_folder() is None  # as Ray chooses
    monkeypatch.setenv("TMPDIR", str(long_folder(tmp_path)))
    folder = session_folder()
    assert folder is not None
    assert len(folder) <= ROOM_BYTES
    assert Path(folder).owner()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "one" / ("long" * 20)))
    with pytest.raises(RunError, match=r"^RAY_TMPDIR=[^\n]*at most \d+ bytes$"):
        session_folder()


@pytest.mark.slow
def test_a_run_with_a_long_tmpdir(make_corpus: Corpus, tmp_path: Path) -> None:
    done = subprocess.run(
        command(make_corpus(4), tmp_path / "store", "Steady", "--workers", "1"),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(long_folder(tmp_path))},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr


UV = """
import subprocess, sys
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


@pytest.mark.slow
def test_under_uv_run_nothing_is_packed_and_it_says_so(make_corpus: Corpus, tmp_path: Path) -> None:
    """Ray looks for a parent that is called `uv run ...`; its hook would start workers by `uv`, which is not here."""
    (tmp_path / "run").write_text(UV)
    done = subprocess.run(
        ["uv", "run", *command(make_corpus(4), tmp_path / "store", "Steady", "--workers", "1")],
        executable=sys.executable,  # a Python that is called uv, and runs the script `run`
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "started by `uv run`: workers use" in done.stderr
    assert any("nothing is packed" in e["line"] for e in events(tmp_path / "store", "said"))


def test_elsewhere_nothing_is_said() -> None:
    assert not under_uv_run()
    assert worker_environment() is None
