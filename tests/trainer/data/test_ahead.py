"""Reading ahead: the order stays, memory is bounded, errors come where they belong, threads end."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from itertools import islice
from pathlib import Path

import pytest

from coat.manifests import InputError
from coat.trainer.data.ahead import LOOK_S, Ahead
from coat.trainer.data.samples import RawSample
from coat.trainer.data.shard_reading import read_ahead
from tests.trainer.data.bare import bare_loader, bare_shards, batches, data_of


def numbers(made: list[int], last: int, fail: bool = False) -> Generator[int]:
    for n in range(last):
        made.append(n)
        yield n
    if fail:
        raise InputError("the end is broken")


def settled(made: list[int]) -> int:
    """How many were made when nothing more is."""
    count = -1
    while count != len(made):
        count = len(made)
        time.sleep(2 * LOOK_S)
    return count


def test_it_reads_as_far_as_its_budget_and_no_further() -> None:
    made: list[int] = []
    ahead = Ahead(numbers(made, 100), lambda _: 10, max_bytes=50)
    assert settled(made) == 6  # five wait, and one is in hand
    assert list(islice(ahead, 3)) == [0, 1, 2]
    assert settled(made) == 9
    assert list(ahead) == list(range(3, 100))
    made = []
    assert list(Ahead(numbers(made, 5), lambda _: 10**6, max_bytes=1)) == [0, 1, 2, 3, 4]  # one is always let in
    made = []
    few = Ahead(numbers(made, 100), lambda _: 1, max_bytes=10**6, max_items=3)
    assert settled(made) == 4
    few.close()


def test_an_error_comes_behind_what_was_read() -> None:
    ahead = Ahead(numbers([], 3, fail=True), lambda _: 1, max_bytes=100)
    assert list(islice(ahead, 3)) == [0, 1, 2]
    with pytest.raises(InputError, match="the end is broken"):
        next(ahead)


def test_threads_end_when_an_iteration_is_dropped(tmp_path: Path) -> None:
    others = set(threading.enumerate())  # that earlier tests left: they may end at any time
    bare_shards(tmp_path, [5, 3, 6, 4])
    made = bare_loader(data_of({"": tmp_path}, shards_ahead=3, shuffle_bytes=300))
    iteration = batches(made)
    next(iteration)
    assert len(set(threading.enumerate()) - others) > 2
    del iteration
    gc.collect()
    deadline = time.monotonic() + 60
    while (left := set(threading.enumerate()) - others) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


WORK = {
    "soxr": "soxr.resample(np.ones(1 << 19, np.float32), 48000, 16000)",
    "torch": "torch.ones(400, 400) @ torch.ones(400, 400)",
}


@pytest.mark.parametrize("work", WORK)
def test_a_process_ends_well_while_a_thread_reads_ahead(work: str) -> None:
    """A daemon thread that is in C++ as the interpreter goes away calls std::terminate: exit code 134 of a good run."""
    code = f"""
import numpy as np, soxr, torch
from coat.trainer.data.ahead import Ahead

def items():
    while True:
        yield {WORK[work]}

next(Ahead(items(), lambda _: 1, float("inf"), 50))
next(Ahead(items(), lambda _: 1, float("inf"), 1))  # waits
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_several_tars_are_read_at_a_time_and_given_in_order() -> None:
    """Each waits until three are open: with fewer at a time nothing would ever come."""
    all_open = threading.Barrier(3, timeout=60)

    def tar(n: int) -> Generator[RawSample]:
        if n < 3:
            all_open.wait()
        for i in range(2):
            yield RawSample(f"{n}", f"{i}", {"json": b"x"})

    found = read_ahead((lambda n=n: tar(n) for n in range(7)), 3)  # type: ignore[misc]
    assert [str(raw) for raw in found] == [f"{n}:{i}" for n in range(7) for i in range(2)]
