"""The command line as a user has it: in a process of its own."""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from coat.cli.main import app
from tests.command_server import COMMAND_SERVER, start_command_server

ROOT = Path(__file__).parents[2]

# For a process of its own: its largest memory so far, in bytes. That of getrusage begins at its parent's.
PEAK = """
def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
"""


@functools.cache
def forked_python() -> list[str]:
    """What stands for `python` before `-m MODULE ...` and `-c CODE`: see tests/command_server.py."""
    path = os.environ.get(COMMAND_SERVER) or start_command_server()
    deadline = time.monotonic() + 600
    while not Path(path).exists():
        assert Path(path).parent.exists(), "the command server has ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return [sys.executable, "-S", str(ROOT / "tests/command_server.py"), path]


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


# `coat ...` whose stages are forked where the imports are done, as the command itself is: argv[1] stands for Python.
WITH_FORKED_STAGES = """
import json, sys
from coat.cli.main import main
from coat.recipe import running
running.PYTHON = json.loads(sys.argv[1])
main(sys.argv[2:])
"""


def coat_run(*arguments: object, status: int = 0, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`coat run ...` or `coat quickstart ...`; the exit status must be `status`."""
    stages = json.dumps(forked_python())
    done = subprocess.run(
        [*forked_python(), "-c", WITH_FORKED_STAGES, stages, *map(str, arguments)],
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


def parse_coat(arguments: list[str]) -> dict[str, Any]:
    """The options as the command line reads them; it raises where one of them does not exist."""
    command: Any = typer.main.get_command(app)
    name, *rest = arguments
    command = command.commands[name]
    while hasattr(command, "commands"):
        name, *rest = rest
        command = command.commands[name]
    return command.make_context(name, rest).params


def hiding(folder: Path, *modules: str) -> Path:
    """A folder for PYTHONPATH (or site-packages): in processes that have it there are no such modules."""
    (folder / "sitecustomize.py").write_text(
        f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_others(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {modules!r} else find(name, path, target)
PathFinder.find_spec = classmethod(find_others)
"""
    )
    return folder
