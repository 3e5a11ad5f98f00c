"""Jobs in parallel with their results in order: in this process, in processes of this machine, or on Ray."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from coat.pipeline.cluster.pool import worker_pool

RESULTS_AHEAD = 2  # jobs per worker whose results may wait: a slow disk holds workers back, and memory stays bounded

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_ordered(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, ray_address: str | None
) -> Iterator[Result]:
    """Results in the order of the jobs. `workers` 0 and no address: here, one by one."""
    ahead = jobs_ahead(workers, ray_address)
    with worker_pool(workers, ray_address) as pool:
        waiting: deque[Any] = deque()
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) >= ahead:
                yield pool.result(waiting.popleft())
        while waiting:
            yield pool.result(waiting.popleft())


def jobs_ahead(workers: int, ray_address: str | None) -> int:
    return RESULTS_AHEAD * max(1, workers) if workers or ray_address else 1
