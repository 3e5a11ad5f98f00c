"""Units on Ray: a pool of actors takes tasks from the queue and gives a report per committed unit."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from coat.manifests.errors import RunError
from coat.pipeline.cluster.ray_connection import capacity
from coat.pipeline.cluster.ray_errors import Cause, cause_of, last_line, why_died
from coat.pipeline.cluster.resources import Cluster
from coat.pipeline.cluster.signals import Deliver, held_signals
from coat.pipeline.extraction.unit_queue import Queue, Task
from coat.pipeline.worker.config import Job
from coat.pipeline.worker.report import Report
from coat.pipeline.worker.worker import UNITS_IN_HAND, Worker

LOST_STARTS = 3  # workers that die one after the other before any is ready: the fault is not a unit's
GROWTH_S = 10.0  # between looks at how large the cluster is
PATIENCE_S = 60.0  # without any worker, before and between saying so


@dataclass(eq=False)
class Member:
    """One actor of the pool and the tasks it has in hand, by object reference, oldest first."""

    actor: Any
    ready: bool = False
    hand: dict[Any, Task] = field(default_factory=dict)
    heard: float = 0.0  # when it last gave a report, or was given work with nothing in hand


def run_ray(queue: Queue, job: Job, cluster: Cluster) -> Iterator[Report]:
    """On a pool of Ray actors; Ray is up. Descriptions of units go in, reports come out; features never do."""
    pool = Pool(queue, job, cluster)
    try:
        with held_signals() as deliver:
            yield from pool.reports(deliver)
    finally:
        pool.dismiss_all()


class Pool:
    """Actors come and go, the queue stays: a worker gets a unit only once it is up, and its units are taken
    back when it dies, is cut off, or says nothing for longer than their deadline.

    Actors never restart by themselves: Ray would keep what they had in hand for a node that may never come.
    `cluster.workers` are asked for at once; those that find no room wait until a node comes. Up to
    `cluster.max_workers` more are hired as the cluster grows.
    """

    def __init__(self, queue: Queue, job: Job, cluster: Cluster) -> None:
        import ray

        self.queue, self.job, self.cluster = queue, job, cluster
        self.actor_class = ray.remote(Worker).options(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_concurrency=UNITS_IN_HAND + 1, max_restarts=0
        )
        self.members: list[Member] = []
        self.starting: dict[Any, Member] = {}
        self.lost_starts = 0
        self.grown = float("-inf")
        self.lonely = time.monotonic()  # since when no worker was up

    def reports(self, deliver_signals: Deliver) -> Iterator[Report]:
        import ray

        while self.queue or any(m.hand for m in self.members):
            self.grow()
            for member in self.members:
                self.assign(member)
            references = [*self.starting, *(ref for m in self.members for ref in m.hand)]
            finished, _ = ray.wait(references, num_returns=1, timeout=1.0) if references else ([], [])
            if not references:
                time.sleep(1.0)
            deliver_signals()
            self.queue.beat()
            for ref in finished:
                yield from self.settle(ref)
            yield from self.give_up_silent()
            self.complain()

    def grow(self) -> None:
        """Hire up to the number asked for, and as far as the cluster has room, never more than there is work."""
        if time.monotonic() - self.grown < GROWTH_S:
            return
        self.grown = time.monotonic()
        least, most = self.cluster.workers, self.cluster.max_workers or self.cluster.workers
        target = least if most <= least else max(least, min(most, capacity(self.cluster)))
        busy = sum(bool(m.hand) for m in self.members)
        for _ in range(min(target, busy + len(self.queue)) - len(self.members)):
            self.hire()

    def hire(self) -> None:
        member = Member(self.actor_class.remote(self.job))
        self.members.append(member)
        self.starting[member.actor.ready.remote()] = member

    def assign(self, member: Member) -> None:
        if not member.ready or any(t.suspect for t in member.hand.values()):
            return
        while len(member.hand) < UNITS_IN_HAND and (task := self.queue.take(idle=not member.hand)):
            if not member.hand:
                member.heard = time.monotonic()
            member.hand[member.actor.run.remote(task.unit)] = task
            if task.suspect:
                return

    def settle(self, ref: Any) -> Iterator[Report]:
        """Take what a reference has become: a report, a worker that is up, or one that died."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        member = self.starting.pop(ref, None) or next((m for m in self.members if ref in m.hand), None)
        if member is None:
            return  # of a worker that was dismissed in this round
        try:
            answer = ray.get(ref)
        except RayTaskError as e:
            raise cause_of(e) from None
        except (RayActorError, OutOfMemoryError) as e:
            cause = why_died(e)
            self.lost_starts = 0 if member.ready or cause == "lost" else self.lost_starts + 1
            raised = "creation task" in str(e)  # by the constructor, which would raise it again
            if raised or self.lost_starts >= LOST_STARTS:
                raise RunError(f"{self.job.expert}: workers die while they start: {last_line(e)}") from e
            yield from self.bury(member, cause)
            return
        if isinstance(answer, Report):
            self.queue.finished(member.hand.pop(ref), answer)
            member.heard = time.monotonic()
            yield answer
        else:
            member.ready, self.lost_starts = True, 0

    def bury(self, member: Member, cause: Cause) -> Iterator[Report]:
        """Kill what may be left of a worker, give its tasks back, and let another be hired at once."""
        self.dismiss(member)
        self.grown = float("-inf")
        self.queue.deaths += bool(member.hand)
        for task in member.hand.values():
            yield from self.queue.died(task, cause)

    def give_up_silent(self) -> Iterator[Report]:
        for member in list(self.members):
            oldest = next(iter(member.hand.values()), None)
            if oldest and time.monotonic() - member.heard > self.queue.deadline(oldest):
                yield from self.bury(member, "timeout")

    def complain(self) -> None:
        """Say it when nothing goes on because the cluster has no room for a worker."""
        if any(m.ready for m in self.members):
            self.lonely = time.monotonic()
        elif time.monotonic() - self.lonely > PATIENCE_S:
            self.lonely = time.monotonic()
            gpus = f" and {self.cluster.gpus:g} GPUs" if self.cluster.gpus else ""
            self.queue.say(
                f"no worker is up yet: each needs {self.cluster.cpus:g} CPUs{gpus} of the Ray cluster, "
                f"which has room for {capacity(self.cluster)} in all, and time to load its expert; waiting"
            )

    def dismiss(self, member: Member) -> None:
        import ray

        ray.kill(member.actor)
        self.members.remove(member)
        for ref in [r for r, m in self.starting.items() if m is member]:
            del self.starting[ref]

    def dismiss_all(self) -> None:
        for member in list(self.members):
            self.dismiss(member)
