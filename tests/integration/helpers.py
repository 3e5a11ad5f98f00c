"""The command line as a user has it: in a process of its own."""

import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from coat.cli.main import main

ROOT = Path(__file__).parents[2]

# For a process of its own: its largest memory so far, in bytes. That of getrusage begins at its parent's.
PEAK = """
def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
"""


def coat(*arguments: object, status: int = 0, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `python -m coat ...`; its exit status must be `status`."""
    done = subprocess.run(
        [sys.executable, "-m", "coat", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )
    assert done.returncode == status, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def coat_here(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """As `coat`, in this process: what is imported by now costs no second start."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main([*map(str, arguments)])
    except SystemExit as e:
        code = e.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert code == status, f"exit {code}\n{out.getvalue()}\n{err.getvalue()}"
    return subprocess.CompletedProcess(["coat", *map(str, arguments)], status, out.getvalue(), err.getvalue())


def folder(variable: str) -> Path:
    """The folder that an environment variable names; the test is skipped where it names none."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    return Path(os.environ[variable])
