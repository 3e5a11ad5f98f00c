"""Units in this process: takes tasks from the queue and gives a report per committed unit."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from coat.manifests.errors import DeviceFault, RunError
from coat.pipeline.extraction.lease import HEARTBEAT_S
from coat.pipeline.extraction.run_queue import RunQueue
from coat.pipeline.extraction.unit_queue import UnitTask
from coat.pipeline.worker.config import UNITS_IN_HAND, WorkerConfig, threads_of
from coat.pipeline.worker.report import UnitReport

GRACE_S = 30.0  # that a batch in hand is waited for when a run in this process is stopped


def run_local(queue: RunQueue, configs: Sequence[WorkerConfig]) -> Iterator[UnitReport]:
    """In this process. When the caller stops listening, the units in hand are dropped at their next batch.

    What a model does to its process it does to this one: a row that crashes it is only found on Ray.
    """
    from coat.pipeline.worker.crew import Crew  # torch: a driver of workers elsewhere does without

    crew = Crew(configs)
    running: dict[Future[UnitReport], UnitTask] = {}
    grace = GRACE_S
    pool = ThreadPoolExecutor(threads_of(len(configs)), thread_name_prefix="unit")
    last_report = time.monotonic()
    try:
        while queue or running:
            while cuts(running) < UNITS_IN_HAND and (handout := queue.take(idle=not running)):
                for task in handout.tasks:
                    running[pool.submit(crew.run, task.expert, task.unit, handout.cut)] = task
            if not running:
                time.sleep(1.0)  # another run has the rest in hand
                continue
            finished, _ = wait(running, timeout=HEARTBEAT_S, return_when=FIRST_COMPLETED)
            queue.send_heartbeat()
            for future in finished:
                task, last_report = running.pop(future), time.monotonic()
                report = result(future)
                queue.finished(task, report)
                yield report
            if running and time.monotonic() - last_report > (limit := queue.deadline(running.values())):
                grace = 0.0  # it was waited for
                oldest = next(iter(running.values()))
                raise RunError(
                    f"{oldest.expert}: nothing was heard of unit {oldest.unit.name} for {limit:.0f} s, and this "
                    "process cannot stop it; with --workers 1 the row is found and the others are done"
                )
    finally:
        crew.stop()
        wait(running, timeout=grace)
        pool.shutdown(wait=False, cancel_futures=True)


def cuts(running: dict[Future[UnitReport], UnitTask]) -> int:
    return len({task.turn for task in running.values()})


def result(future: Future[UnitReport]) -> UnitReport:
    """DeviceFault says what to do: this process can't be replaced, a worker can."""
    try:
        return future.result()
    except DeviceFault as e:
        raise DeviceFault(f"{e}; with --workers 1 the worker is replaced, and a row that does it is found") from e
