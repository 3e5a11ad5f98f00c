"""The command line as a user has it: in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

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
        env=environment(),
    )
    return checked(done, status)


# Several commands one after another in one process, with a mark and the exit status behind what each of them says.
EACH = """
import json, sys
from coat.cli.main import main
for arguments in json.load(sys.stdin):
    status = 0
    try:
        main(arguments)
    except SystemExit as e:
        status = e.code or 0
    for stream in (sys.stdout, sys.stderr):
        print(f"\\0{status}", end="\\0", file=stream, flush=True)
"""


def coat_each(*commands: Sequence[object], status: int = 0) -> list[subprocess.CompletedProcess[str]]:
    """As `coat`, for several commands that have one start, and its imports, between them."""
    done = subprocess.run(
        [sys.executable, "-c", EACH],
        input=json.dumps([[*map(str, command)] for command in commands]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    outs, errs = done.stdout.split("\0"), done.stderr.split("\0")
    assert len(outs) == len(errs) == 2 * len(commands) + 1
    found = [
        subprocess.CompletedProcess(["coat"], int(outs[i + 1]), outs[i], errs[i]) for i in range(0, len(outs) - 1, 2)
    ]
    return [checked(one, status) for one in found]


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
