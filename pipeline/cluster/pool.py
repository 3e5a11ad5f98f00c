"""Functions run by workers: in this process, in processes of this machine, or as tasks on Ray.

with worker_pool(workers, ray_address) as pool:
    meta, data = pool.submit_pair(encode, job)      encode gives two values; `data` need not come here
    written = pool.submit(write, job, data)         it is handed from one worker to the other
    pool.result(written)
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import wait
from typing import Any, Protocol

from coat.manifests.errors import RunError
from coat.pipeline.cluster.ray_connection import connected
from coat.pipeline.cluster.resources import Cluster

Handle = Any  # of a value that a worker makes: a pool's own kind


class WorkerPool(Protocol):
    """`shares_disk`: whether workers see each other's files on this machine."""

    shares_disk: bool

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        """Arguments may be handles of values that are made already."""
        ...

    def submit_pair(self, function: Callable[..., Any], *arguments: Any) -> tuple[Handle, Handle]: ...

    def result(self, handle: Handle) -> Any:
        """Waits for it. What the function raised is raised here."""
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

    def submit_pair(self, function: Callable[..., Any], *arguments: Any) -> tuple[Handle, Handle]:
        call = Lazy(function, arguments)
        return Part(call, 0), Part(call, 1)

    def result(self, handle: Handle) -> Any:
        return resolved(handle)


class Processes:
    shares_disk = True

    def __init__(self, workers: int) -> None:
        # Spawned, not forked: this process has threads.
        context = multiprocessing.get_context("spawn")
        self.executor = ProcessPoolExecutor(workers, context, initializer=exit_with_parent)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        return self.executor.submit(function, *map(resolved, arguments))

    def submit_pair(self, function: Callable[..., Any], *arguments: Any) -> tuple[Handle, Handle]:
        call = self.submit(function, *arguments)
        return Part(call, 0), Part(call, 1)

    def result(self, handle: Handle) -> Any:
        return resolved(handle)


class RayTasks:
    """Values stay in Ray's object store until a worker, or this process, asks for them."""

    shares_disk = False

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Handle:
        import ray

        task: Any = ray.remote(function)
        return task.remote(*arguments)

    def submit_pair(self, function: Callable[..., Any], *arguments: Any) -> tuple[Handle, Handle]:
        import ray

        task: Any = ray.remote(function)
        first, second = task.options(num_returns=2).remote(*arguments)
        return first, second

    def result(self, handle: Handle) -> Any:
        import ray

        get: Any = ray.get
        return get(handle)


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
