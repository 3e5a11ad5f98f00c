"""Jobs in parallel with their results in order: in this process, in processes of this machine, or on Ray."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from coat.manifests.errors import RunError
from coat.pipeline.cluster.ray_connection import connected
from coat.pipeline.cluster.resources import Cluster

RESULTS_AHEAD = 2  # jobs per worker whose results may wait: a slow disk holds workers back, and memory stays bounded

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_ordered(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, ray_address: str | None
) -> Iterator[Result]:
    """Results in the order of the jobs. `workers` 0 and no address: here."""
    if ray_address:
        yield from run_on_ray(function, jobs, max(1, workers), ray_address)
    elif workers:
        yield from run_in_processes(function, jobs, workers)
    else:
        yield from map(function, jobs)


def run_in_processes(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    # Spawned, not forked: this process has threads.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=exit_with_parent)
    try:
        yield from results_in_order(jobs, lambda job: pool.submit(function, job), Future.result, workers)
    except BrokenProcessPool as e:
        raise RunError(
            "a worker process died, of want of memory or of a file that crashes its decoder; what was finished is "
            "kept: run again, with fewer --workers or with 0"
        ) from e
    finally:
        pool.shutdown(cancel_futures=True)


def exit_with_parent() -> None:
    """A worker neither answers Ctrl-C itself nor outlives a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_on_ray(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, address: str) -> Iterator[Result]:
    import ray

    with connected(Cluster(workers=workers, address=address)):
        task: Any = ray.remote(function)
        get: Any = ray.get
        yield from results_in_order(jobs, task.remote, get, workers)


def results_in_order(
    jobs: Iterable[Job], submit: Callable[[Job], Any], result: Callable[[Any], Result], workers: int
) -> Iterator[Result]:
    waiting: deque[Any] = deque()
    for job in jobs:
        waiting.append(submit(job))
        if len(waiting) >= RESULTS_AHEAD * workers:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())
