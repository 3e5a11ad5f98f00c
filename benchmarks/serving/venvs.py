"""Environments of their own for vLLM and for transformers 4, made once by the files of deploy/serving."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
# Builds for other kinds of torch, whose import ends the one of vLLM: it does without them.
REMOVED = ("torchvision", "torchaudio", "torchcodec")


def python_of(name: str, home: Path) -> Path:
    """The Python of environment `name` (vllm, transformers4), made where it is not there as its file says."""
    requirements = DEPLOY / "serving" / f"{name}.txt"
    venv, digest = home / f"venv-{name}", hashlib.sha256(requirements.read_bytes()).hexdigest()
    python, note = venv / "bin" / "python", venv / "installed"
    if note.exists() and note.read_text() == digest:
        return python
    print(f"making {venv} of {requirements.name}", flush=True)
    started = time.perf_counter()
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run([python, str(DEPLOY / "install.py"), "--requirement", str(requirements)], check=True)
    if name == "vllm":
        remove_broken(python)
    note.write_text(digest)
    print(f"made in {time.perf_counter() - started:.0f} s", flush=True)
    return python


def remove_broken(python: Path) -> None:
    """Those of REMOVED that cannot be imported with this torch."""
    broken = [m for m in REMOVED if subprocess.run([python, "-c", f"import {m}"], capture_output=True).returncode]
    if broken:
        subprocess.run([python, "-m", "pip", "uninstall", "-qq", "--yes", *broken], check=True)
