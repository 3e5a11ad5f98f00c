"""Environments of their own for vLLM and for transformers 4, made once by the files of deploy/serving."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
# Those of PyPI are built for CUDA, and with a torch for CPUs their import ends the one of vLLM, which does without.
REMOVED = ("torchaudio", "torchcodec")


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
        mend_torchvision(python)
        remove_broken(python)
    note.write_text(digest)
    print(f"made in {time.perf_counter() - started:.0f} s", flush=True)
    return python


def mend_torchvision(python: Path) -> None:
    """Of one built for CUDA everything works on CPUs but its own operators, and its import ends where it declares what
    shapes these give. Omni's processor needs the rest of it, so that declaration is emptied, here in the environment.
    """
    if can_import(python, "torchvision"):
        return
    (package,) = python.parents[1].glob("lib/python3*/site-packages/torchvision")
    (package / "_meta_registrations.py").write_text("")
    if not can_import(python, "torchvision"):
        raise RuntimeError(f"{package}: cannot be imported with this torch; install one built for it")


def remove_broken(python: Path) -> None:
    if broken := [module for module in REMOVED if not can_import(python, module)]:
        subprocess.run([python, "-m", "pip", "uninstall", "-qq", "--yes", *broken], check=True)


def can_import(python: Path, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0
