"""One `coat run` at a time in a folder, and its stage with it.

The lock is a file that is open in this process and in the stage's: a stage that a kill of this process leaves at work
holds it on, and the same command waits for it.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from coat.manifests.errors import InputError
from coat.manifests.processes import process_is_alive, this_process

LOCK = "running.lock"
WAIT_S = 0.5  # between two looks


@contextlib.contextmanager
def locked(folder: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Gives the file's number, for the processes of stages. InputError where another run is at work in the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as e:
        raise InputError(f"{folder}: cannot be written ({e.strerror}); give another --out") from e
    try:
        said = False
        while not taken(file, say):
            owner = holder(file)
            if owner is None or process_is_alive(*owner) is not False:
                who = f"process {owner[1]} of {owner[0]}" if owner else "another process"
                raise InputError(f"{folder.parent}: {who} runs a recipe there; wait for it, or give another --out")
            if not said:
                say("a run was killed here, and the stage that it began is still at work; waiting for it")
                said = True
            time.sleep(WAIT_S)
        host, _, pid = this_process().rpartition("+")
        started = psutil.Process().create_time()
        os.truncate(file, 0)
        os.pwrite(file, json.dumps([host, int(pid), started]).encode(), 0)
        yield file
    finally:
        os.close(file)


def taken(file: int, say: Callable[[str], None]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:  # a share that knows no locks
        say(f"the folder cannot be locked ({e.strerror}): see to it that no second run is at work there")
    return True


def holder(file: int) -> tuple[str, int, float] | None:
    """Who wrote the lock; None in the instant before it is written."""
    try:
        host, pid, started = json.loads(os.pread(file, 4096, 0))
        return str(host), int(pid), float(started)
    except ValueError:
        return None
