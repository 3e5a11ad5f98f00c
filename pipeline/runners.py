"""Where units run: in this process, or on Ray. Both give one report per committed unit, in any order."""

import logging
import math
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coat.manifests.errors import RunError
from coat.pipeline.commit import commit_unit
from coat.pipeline.plan import Unit
from coat.pipeline.store import Row
from coat.pipeline.worker import UNITS_IN_HAND, Job, Report, Worker

KILLS = 3  # of its worker, after which a unit is halved
LOST_STARTS = 3  # workers that die one after the other before any is ready: the fault is not a unit's


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where Ray is and what a worker takes of it. No address: a Ray of our own on this machine."""

    workers: int
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0  # a share of one: 0.5 puts two workers on a device


def run_local(units: Iterable[Unit], job: Job) -> Iterator[Report]:
    """In this process. When the caller stops listening, the units in hand are dropped at their next batch."""
    worker = Worker(job)
    waiting = deque(units)
    running: set[Future[Report]] = set()
    with ThreadPoolExecutor(UNITS_IN_HAND, thread_name_prefix="unit") as pool:
        try:
            while waiting or running:
                while waiting and len(running) < UNITS_IN_HAND:
                    running.add(pool.submit(worker.run, waiting.popleft()))
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            worker.stopped.set()


@dataclass
class Task:
    """A unit on its way, and how many workers died with it in hand."""

    unit: Unit
    kills: int = 0


@dataclass(eq=False)
class Member:
    """One actor of the pool and the units it has in hand, by object reference."""

    actor: Any
    ready: bool = False
    hand: dict[Any, Task] = field(default_factory=dict)

    def room(self, task: Task) -> bool:
        """A unit that was in a worker's hand when it died runs alone, so that only the guilty are counted."""
        if not self.ready or any(t.kills for t in self.hand.values()):
            return False
        return len(self.hand) < (1 if task.kills else UNITS_IN_HAND)


def run_ray(units: Iterable[Unit], job: Job, cluster: Cluster, say: Callable[[str], None]) -> Iterator[Report]:
    """On a fixed pool of Ray actors. Unit descriptions go in, reports come out; features never do.

    A worker gets a unit only once it is up, and its units are taken back when it dies; a unit that
    kills KILLS workers is halved until the poisonous row is alone, which is then recorded as crashed.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    started_here = connect(cluster)
    actor_class = ray.remote(Worker).options(
        num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_concurrency=UNITS_IN_HAND + 1, max_restarts=0
    )
    waiting = deque(Task(u) for u in units)
    pool: list[Member] = []
    starting: dict[Any, Member] = {}
    lost_starts = 0

    def hire() -> None:
        member = Member(actor_class.remote(job))
        pool.append(member)
        starting[member.actor.ready.remote()] = member

    try:
        for _ in range(min(cluster.workers, len(waiting))):
            hire()
        while waiting or any(m.hand for m in pool):
            for member in pool:
                while waiting and member.room(waiting[0]):
                    task = waiting.popleft()
                    member.hand[member.actor.run.remote(task.unit)] = task
            references = [*starting, *(ref for m in pool for ref in m.hand)]
            finished, _ = ray.wait(references, num_returns=1, timeout=5.0)
            for ref in finished:
                member = starting.pop(ref, None) or next((m for m in pool if ref in m.hand), None)
                if member is None:
                    continue  # of a worker that was dismissed in this round
                try:
                    answer = ray.get(ref)
                except RayTaskError as e:
                    raise cause_of(e) from None
                except RayActorError as e:
                    lost_starts = 0 if member.ready else lost_starts + 1
                    raised = "creation task" in str(e)  # by the constructor, which would raise it again
                    if raised or lost_starts >= LOST_STARTS:
                        raise RunError(f"{job.expert}: workers die while they start: {last_line(e)}") from e
                    dismiss(member, pool, starting)
                    for task in member.hand.values():
                        yield from requeue(task, waiting, job, say)
                    hire()
                    continue
                if isinstance(answer, Report):
                    member.hand.pop(ref)
                    yield answer
                else:
                    member.ready, lost_starts = True, 0
    finally:
        for member in pool:
            ray.kill(member.actor)
        if started_here:
            ray.shutdown()


def dismiss(member: Member, pool: list[Member], starting: dict[Any, Member]) -> None:
    pool.remove(member)
    for ref in [r for r, m in starting.items() if m is member]:
        del starting[ref]


def requeue(task: Task, waiting: deque[Task], job: Job, say: Callable[[str], None]) -> Iterator[Report]:
    """Put a unit whose worker died back; halve it at KILLS; a row that is alone then has crashed."""
    kills = task.kills + 1
    name, rows = task.unit.name, task.unit.rows
    if kills < KILLS:
        say(f"a worker died with unit {name} in hand ({kills} of {KILLS}); it is run again")
        waiting.appendleft(Task(task.unit, kills))
    elif len(rows) > 1:
        say(f"unit {name} killed {KILLS} workers; it is halved to find the row")
        waiting.extendleft(Task(half, KILLS - 1) for half in task.unit.halves())
    else:
        error = "crashed: the worker died of this row each time it was tried; listen to its audio"
        crashed = [Row(name, p.utterance.id, p.digest, None, 0.0, 0, 0, "failed", error) for p in rows]
        commit_unit(job.set_url, name, np.empty((0, job.spec.dim), job.spec.dtype), crashed, {})
        yield Report.of_failed(name, crashed)


def connect(cluster: Cluster) -> bool:
    """Join or start Ray; True where this process started it. RunError where there is none at the address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return False
    if cluster.address:
        check_listens(cluster.address)
        try:
            ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError, TimeoutError) as e:
            raise RunError(f"no Ray cluster at {cluster.address} ({last_line(e)})") from e
        return True
    ray.init(
        address="local",
        num_cpus=max(1, math.ceil(cluster.workers * cluster.cpus)),
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    return True


def check_listens(address: str) -> None:
    """RunError where nobody listens: Ray itself would try for many minutes, deaf to Ctrl-C."""
    host, _, port = address.split("://", 1)[-1].rpartition(":")
    if not port.isdigit():
        return  # auto, local
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as e:
        raise RunError(f"no Ray cluster at {address} ({e})") from e


def cause_of(error: Any) -> Exception:
    """What the worker raised: a RunError as it is, anything else named."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, RunError) else RunError(f"a worker failed: {last_line(cause or error)}")


def last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:400]
