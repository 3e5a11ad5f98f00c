"""The command line as a user has it: in a process of its own."""

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# For a process of its own: its largest memory so far, in bytes. That of getrusage begins at its parent's.
PEAK = """
def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
"""


@functools.cache
def forked_python() -> list[str]:
    """What stands for `python` before `-m coat ...` and `-c CODE`: see tests/command_server.py."""
    script, path = str(ROOT / "tests/command_server.py"), f"{tempfile.mkdtemp(prefix='coat-')}/s"
    server = subprocess.Popen([sys.executable, script, path], cwd=ROOT, env=environment())
    atexit.register(shutil.rmtree, Path(path).parent)
    atexit.register(server.kill)
    deadline = time.monotonic() + 600
    while not Path(path).exists():
        assert server.poll() is None, f"the command server ended with {server.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [sys.executable, "-S", script, path]


def coat(*arguments: object, status: int = 0, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `python -m coat ...`; its exit status must be `status`."""
    done = subprocess.run(
        [*forked_python(), "-m", "coat", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(),
    )
    return checked(done, status)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def checked(done: subprocess.CompletedProcess[str], status: int) -> subprocess.CompletedProcess[str]:
    assert done.returncode == status, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def folder(variable: str) -> Path:
    """The folder that an environment variable names; the test is skipped where it names none."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    return Path(os.environ[variable])
