"""Versions, extras, audio libraries, devices: missing, too old, hidden, crashing, hanging."""

import json
import os
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

from coat.doctor.declared import declared, lack
from coat.doctor.extras import state_of
from coat.doctor.finding import Finding
from coat.doctor.gpu import driver
from coat.doctor.versions import other_than_pinned, python
from tests.doctor.helpers import doctor, run
from tests.integration.helpers import ROOT, hiding


def path_with(folder: Path) -> str:
    return f"{folder}{os.pathsep}{ROOT}"


def test_an_extra_that_is_hidden(tmp_path: Path) -> None:
    found = doctor("extras", PYTHONPATH=path_with(hiding(tmp_path, "opensmile", "obstore")))
    opensmile = found["extra opensmile"]
    assert opensmile["state"] == "warning"
    assert "there is no module opensmile; without it: no expert prosody" in opensmile["found"]
    assert opensmile["remedy"].endswith("pip install 'coat-audio[opensmile]'")
    assert "no addresses gs://, gcs://" in found["extra gcs"]["found"]
    assert found["extra crepe"]["state"] == "ok"
    assert found["experts"]["found"].startswith("22 of 23")


def test_an_extra_that_was_never_installed() -> None:
    found = state_of("omni", (Requirement("no-such-package>=1"),), {})
    assert (found.state, found.found) == (
        "absent",
        "not installed; without it: no student Qwen2.5-Omni or Qwen3-Omni",
    )
    half = state_of("omni", (Requirement("no-such-package>=1"), Requirement("numpy>=1")), {})
    assert half.state == "warning"
    old = state_of("omni", (Requirement("numpy>=99"),), {})
    assert old.state == "warning"
    assert "needed: >=99" in old.found


def test_what_a_requirement_lacks() -> None:
    assert lack(Requirement("numpy>=1")) is None
    assert lack(Requirement("ray[default]>=2")) is None
    assert lack(Requirement("no-such-package")) == "not installed"
    assert str(lack(Requirement("numpy>=99"))).endswith("needed: >=99")


def test_what_coat_needs_is_read_from_its_project_file(tmp_path: Path) -> None:
    found = declared()
    assert found is not None
    assert found.source == "pyproject.toml"
    assert {"torch", "packaging"} <= {r.name for r in found.needed}
    assert {"nemo", "opensmile", "crepe", "yamnet", "s3", "gcs", "azure", "omni", "4bit", "dev"} <= found.extras.keys()
    assert "all" not in found.extras
    text = (ROOT / "pyproject.toml").read_text().replace('"numpy>=2.4"', '"numpy>=99"', 1)
    (tmp_path / "pyproject.toml").write_text(text)
    other = declared(tmp_path)
    assert other is not None
    assert [lack(r) is None for r in other.needed if r.name == "numpy"] == [False]
    (tmp_path / "pyproject.toml").write_text(
        text.replace('requires-python = ">=3.11,<3.13"', 'requires-python = ">=3.99"')
    )
    future = declared(tmp_path)
    assert future is not None
    assert python(future).state == "broken"


def test_versions_other_than_those_tested(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("numpy==0.1\nHuggingface_Hub==0.2\nzarr==3.1.6\n")
    found = other_than_pinned((Requirement("numpy"), Requirement("huggingface-hub")), pins)
    assert found.state == "warning"
    assert "numpy" in found.found
    assert "(tested: 0.2)" in found.found
    assert other_than_pinned((Requirement("numpy"),), tmp_path / "none").state == "absent"


def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "soundfile.py").write_text('raise OSError("cannot load library libsndfile.so")')
    found = doctor("audio", "versions", PYTHONPATH=path_with(tmp_path), status=1)
    assert "cannot load library libsndfile.so" in found["libsndfile"]["found"]
    assert "--force-reinstall" in found["libsndfile"]["remedy"]
    assert found["Python"]["state"] == "ok"


def test_a_library_that_crashes(tmp_path: Path) -> None:
    (tmp_path / "soundfile.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    found = doctor("audio", "versions", PYTHONPATH=path_with(tmp_path), status=1)
    assert "ended by SIGSEGV" in found["audio"]["found"]
    assert found["Python"]["state"] == "ok"


def test_a_library_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "soundfile.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(3600)"
    )
    began = time.monotonic()
    found = doctor("audio", PYTHONPATH=path_with(tmp_path), patience=5, status=1)
    assert "no end within 5 s" in found["audio"]["found"]
    assert time.monotonic() - began < 1800
    if (tmp_path / "pid").exists():  # it had come so far
        pid = int((tmp_path / "pid").read_text())
        deadline = time.monotonic() + 60
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_each_format_is_read() -> None:
    found = doctor("audio")
    assert found["libsndfile"]["state"] == found["FFmpeg"]["state"] == "ok"
    for name in ("aac", "mp3", "opus", "vorbis", "flac", "alac"):
        assert name in found["FFmpeg"]["found"]


def fake_nvidia_smi(folder: Path, body: str) -> str:
    """A PATH on which nvidia-smi does as `body` says."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_a_driver_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path, 'echo "couldn\'t communicate with the NVIDIA driver"; exit 9'))
    found = driver()
    assert isinstance(found, Finding)
    assert found.state == "broken"
    assert "couldn't communicate" in found.found


def test_devices_that_torch_cannot_use(tmp_path: Path) -> None:
    """The driver shows one, and there is none: the same as a driver that is too old for this torch."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch can use a device here")
    path = fake_nvidia_smi(tmp_path, "echo '0, NVIDIA H100 80GB HBM3, 535.10, 81559, 70000, 97, Exclusive_Process'")
    found = doctor("gpu", PATH=path, status=1)["GPU"]
    assert found["found"].startswith("driver 535.10 shows 1 devices, and torch cannot use it")
    assert found["remedy"]


def test_readable_lines_and_their_remedies(tmp_path: Path) -> None:
    done = run("extras", PYTHONPATH=path_with(hiding(tmp_path, "opensmile")))
    lines = done.stdout.splitlines()
    assert lines[0] == "extras"
    at = next(i for i, line in enumerate(lines) if "extra opensmile: " in line)
    assert lines[at].startswith("  warning  extra opensmile: ")
    assert lines[at + 1].strip() == f"-> {sys.executable} -m pip install 'coat-audio[opensmile]'"
    assert lines[-1].startswith("1 warning, ")


def test_subjects_are_chosen_and_unknown_ones_refused() -> None:
    done = run("limits", "versions", "--json")
    assert {f["subject"] for f in json.loads(done.stdout)["findings"]} == {"versions", "limits"}
    done = run("limit")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --only limit: expected one of versions, system, limits, ")
