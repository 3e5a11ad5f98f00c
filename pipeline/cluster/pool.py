"""Functions run by workers: in this process, in processes of this machine, or as tasks on Ray.

with worker_pool(workers, ray_address) as pool:
    meta, data = pool.submit_parts(encode, 2, job)  encode gives two values; `data` need not come here
    written = pool.submit(write, job, data)         it is handed from one worker to the other
    pool.result(written)
"""

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol, overload

from coat.manifests.errors import RunError
from coat.pipeline.cluster.ray_connection import connected
from coat.pipeline.cluster.resources import Cluster

SCRATCH_SHARE = 0.4  # of a disk, or of Ray's object store: other things wait there too
Handle = Any  # of a value that a worker makes: a pool's own kind


class WorkerPool(Protocol):
    """`shares_disk`: whether workers see each other's files on this machine."""

    shares_disk: bool

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        """Arguments may be handles of values that are made already."""
        ...

    def submit_parts(self, function: Callable[..., Any], count: int, *arguments: Any) -> Sequence[Handle]:
        """Of a function that gives so many values (on Ray: the value itself, where that is one)."""
        ...

    def result(self, handle: Handle) -> Any:
        """Waits for it. What the function raised is raised here."""
        ...

    def wait(self, handle: Handle) -> None:
        """As `result`, but the value stays where it is; on Ray an error is raised by who takes the value."""
        ...

    def scratch_bytes(self, folder: Path) -> int:
        """How much may wait between two steps: of the disk of `folder`, or in Ray's object store."""
        ...


@dataclass
class Lazy:
    """A call that is made when its result is asked for, and once."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    @cached_property
    def value(self) -> Any:
        return self.function(*map(resolved, self.arguments))


@dataclass(frozen=True)
class Part:
    """One of the values that a call gives."""

    whole: Any  # Lazy or Future
    number: int


@dataclass(frozen=True)
class Parts(Sequence[Part]):
    """All of them, none of which is an object before it is asked for."""

    whole: Any
    length: int

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> list[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | list[Part]:
        chosen = range(self.length)[index]
        return Part(self.whole, chosen) if isinstance(chosen, int) else [Part(self.whole, n) for n in chosen]


def resolved(handle: Any) -> Any:
    if isinstance(handle, Part):
        return resolved(handle.whole)[handle.number]
    if isinstance(handle, Lazy):
        return handle.value
    return handle.result() if isinstance(handle, Future) else handle


class ThisProcess:
    shares_disk = True

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return Lazy(function, arguments)

    def submit_parts(self, function: Callable[..., Any], count: int, *arguments: Any) -> Sequence[Handle]:
        return Parts(Lazy(function, arguments), count)

    def result(self, handle: Handle) -> Any:
        return resolved(handle)

    def wait(self, handle: Handle) -> None:
        resolved(handle)

    def scratch_bytes(self, folder: Path) -> int:
        return free_for_scratch(folder)


class Processes:
    shares_disk = True

    def __init__(self, workers: int) -> None:
        # Spawned, not forked: this process has threads.
        context = multiprocessing.get_context("spawn")
        self.executor = ProcessPoolExecutor(workers, context, initializer=exit_with_parent)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return self.executor.submit(function, *map(resolved, arguments))

    def submit_parts(self, function: Callable[..., Any], count: int, *arguments: Any) -> Sequence[Handle]:
        return Parts(self.submit(function, *arguments), count)

    def result(self, handle: Handle) -> Any:
        return resolved(handle)

    def wait(self, handle: Handle) -> None:
        resolved(handle)

    def scratch_bytes(self, folder: Path) -> int:
        return free_for_scratch(folder)


class RayTasks:
    """Values stay in Ray's object store until a worker, or this process, asks for them."""

    shares_disk = False

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        import ray

        task: Any = ray.remote(function)
        return task.remote(*arguments)

    def submit_parts(self, function: Callable[..., Any], count: int, *arguments: Any) -> list[Handle]:
        import ray

        task: Any = ray.remote(function)
        handles = task.options(num_returns=count).remote(*arguments)
        return handles if count > 1 else [handles]

    def result(self, handle: Handle) -> Any:
        import ray

        get: Any = ray.get
        return get(handle)

    def wait(self, handle: Handle) -> None:
        import ray

        ray.wait([handle], fetch_local=False)

    def scratch_bytes(self, folder: Path) -> int:
        import ray

        held = ray.cluster_resources().get("object_store_memory", 0.0)
        return int(held * SCRATCH_SHARE)


def free_for_scratch(folder: Path) -> int:
    return int(shutil.disk_usage(folder).free * SCRATCH_SHARE)


@contextmanager
def worker_pool(workers: int, ray_address: str | None) -> Iterator[WorkerPool]:
    """`workers` 0 and no address: this process. RunError where a worker died."""
    if ray_address:
        with connected(Cluster(workers=max(1, workers), address=ray_address)):
            yield RayTasks()
        return
    if not workers:
        yield ThisProcess()
        return
    pool = Processes(workers)
    try:
        yield pool
    except BrokenProcessPool as e:
        raise RunError(
            "a worker process died, of want of memory or of a file that crashes its decoder; what was finished is "
            "kept: run again, with fewer --workers or with 0"
        ) from e
    finally:
        pool.executor.shutdown(cancel_futures=True)


def exit_with_parent() -> None:
    """A worker neither answers Ctrl-C itself nor outlives a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
