"""Units on Ray: a pool of actors takes tasks from the queue and gives a report per committed unit."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from coat.manifests.errors import RunError
from coat.pipeline.cluster.ray_connection import worker_capacity
from coat.pipeline.cluster.ray_errors import DeathCause, death_cause, error_summary, worker_error
from coat.pipeline.cluster.resources import Cluster
from coat.pipeline.cluster.signals import Deliver, held_signals
from coat.pipeline.extraction.unit_queue import UnitQueue, UnitTask
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.report import UnitReport
from coat.pipeline.worker.worker import UNITS_IN_HAND, Worker

MAX_FAILED_STARTS = 3  # workers that die one after the other before any is ready: the fault is not a unit's
GROWTH_S = 10.0  # between looks at how large the cluster is
NO_WORKER_WARNING_S = 60.0  # without any worker, before and between saying so


@dataclass(eq=False)
class PoolWorker:
    """One actor of the pool and the tasks it has in hand, by object reference, oldest first."""

    actor: Any
    ready: bool = False
    in_hand: dict[Any, UnitTask] = field(default_factory=dict)
    last_report: float = 0.0  # when it last gave a report, or was given work with nothing in hand


def run_ray(queue: UnitQueue, config: WorkerConfig, cluster: Cluster) -> Iterator[UnitReport]:
    """On a pool of Ray actors; Ray is up. Descriptions of units go in, reports come out; features never do."""
    pool = WorkerPool(queue, config, cluster)
    try:
        with held_signals() as deliver:
            yield from pool.reports(deliver)
    finally:
        pool.dismiss_all()


class WorkerPool:
    """Actors come and go, the queue stays: a worker gets a unit only once it is up, and its units are taken
    back when it dies, is cut off, or says nothing for longer than their deadline.

    Actors never restart by themselves: Ray would keep what they had in hand for a node that may never come.
    `cluster.workers` are asked for at once; those that find no room wait until a node comes. Up to
    `cluster.max_workers` more are hired as the cluster grows.
    """

    def __init__(self, queue: UnitQueue, config: WorkerConfig, cluster: Cluster) -> None:
        import ray

        self.queue, self.config, self.cluster = queue, config, cluster
        self.actor_class = ray.remote(Worker).options(
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker,
            max_concurrency=UNITS_IN_HAND + 1,
            max_restarts=0,
        )
        self.workers: list[PoolWorker] = []
        self.starting: dict[Any, PoolWorker] = {}
        self.failed_starts = 0
        self.last_growth = float("-inf")
        self.idle_since = time.monotonic()  # since when no worker was up

    def reports(self, deliver_signals: Deliver) -> Iterator[UnitReport]:
        import ray

        while self.queue or any(w.in_hand for w in self.workers):
            self.hire_as_it_grows()
            for worker in self.workers:
                self.assign(worker)
            references = [*self.starting, *(ref for w in self.workers for ref in w.in_hand)]
            finished, _ = ray.wait(references, num_returns=1, timeout=1.0) if references else ([], [])
            if not references:
                time.sleep(1.0)
            deliver_signals()
            self.queue.send_heartbeat()
            for ref in finished:
                yield from self.take_result(ref)
            yield from self.give_up_unresponsive()
            self.warn_without_workers()

    def hire_as_it_grows(self) -> None:
        """Hire up to the number asked for, and as far as the cluster has room, never more than there is work."""
        if time.monotonic() - self.last_growth < GROWTH_S:
            return
        self.last_growth = time.monotonic()
        least, most = self.cluster.workers, self.cluster.max_workers or self.cluster.workers
        target = least if most <= least else max(least, min(most, worker_capacity(self.cluster)))
        busy = sum(bool(w.in_hand) for w in self.workers)
        for _ in range(min(target, busy + len(self.queue)) - len(self.workers)):
            self.hire()

    def hire(self) -> None:
        worker = PoolWorker(self.actor_class.remote(self.config))
        self.workers.append(worker)
        self.starting[worker.actor.ready.remote()] = worker

    def assign(self, worker: PoolWorker) -> None:
        if not worker.ready or any(t.suspect for t in worker.in_hand.values()):
            return
        while len(worker.in_hand) < UNITS_IN_HAND and (task := self.queue.take(idle=not worker.in_hand)):
            if not worker.in_hand:
                worker.last_report = time.monotonic()
            worker.in_hand[worker.actor.run.remote(task.unit)] = task
            if task.suspect:
                return

    def take_result(self, ref: Any) -> Iterator[UnitReport]:
        """Take what a reference has become: a report, a worker that is up, or one that died."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        worker = self.starting.pop(ref, None) or next((w for w in self.workers if ref in w.in_hand), None)
        if worker is None:
            return  # of a worker that was dismissed in this round
        try:
            answer = ray.get(ref)
        except RayTaskError as e:
            raise worker_error(e) from None
        except (RayActorError, OutOfMemoryError) as e:
            cause = death_cause(e)
            self.failed_starts = 0 if worker.ready or cause == "lost" else self.failed_starts + 1
            raised = "creation task" in str(e)  # by the constructor, which would raise it again
            if raised or self.failed_starts >= MAX_FAILED_STARTS:
                raise RunError(f"{self.config.expert}: workers die while they start: {error_summary(e)}") from e
            yield from self.remove_dead(worker, cause)
            return
        if isinstance(answer, UnitReport):
            self.queue.finished(worker.in_hand.pop(ref), answer)
            worker.last_report = time.monotonic()
            yield answer
        else:
            worker.ready, self.failed_starts = True, 0

    def remove_dead(self, worker: PoolWorker, cause: DeathCause) -> Iterator[UnitReport]:
        """Kill what may be left of a worker, give its tasks back, and let another be hired at once."""
        self.dismiss(worker)
        self.last_growth = float("-inf")
        self.queue.worker_deaths += bool(worker.in_hand)
        for task in worker.in_hand.values():
            yield from self.queue.worker_died(task, cause)

    def give_up_unresponsive(self) -> Iterator[UnitReport]:
        for worker in list(self.workers):
            oldest = next(iter(worker.in_hand.values()), None)
            if oldest and time.monotonic() - worker.last_report > self.queue.deadline(oldest):
                yield from self.remove_dead(worker, "timeout")

    def warn_without_workers(self) -> None:
        """Say it when nothing goes on because the cluster has no room for a worker."""
        if any(w.ready for w in self.workers):
            self.idle_since = time.monotonic()
        elif time.monotonic() - self.idle_since > NO_WORKER_WARNING_S:
            self.idle_since = time.monotonic()
            gpus = f" and {self.cluster.gpus_per_worker:g} GPUs" if self.cluster.gpus_per_worker else ""
            self.queue.say(
                f"no worker is up yet: each needs {self.cluster.cpus_per_worker:g} CPUs{gpus} of the Ray cluster, "
                f"which has room for {worker_capacity(self.cluster)} in all, and time to load its expert; waiting"
            )

    def dismiss(self, worker: PoolWorker) -> None:
        import ray

        ray.kill(worker.actor)
        self.workers.remove(worker)
        for ref in [r for r, w in self.starting.items() if w is worker]:
            del self.starting[ref]

    def dismiss_all(self) -> None:
        for worker in list(self.workers):
            self.dismiss(worker)
