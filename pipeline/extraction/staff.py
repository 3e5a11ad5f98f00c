"""The workers of a run on Ray: hired as the cluster has room, and not again where one could not work."""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coat.manifests.errors import RunError
from coat.pipeline.cluster.ray_connection import worker_capacity
from coat.pipeline.cluster.resources import Cluster
from coat.pipeline.decoding.shared_audio import Cut
from coat.pipeline.extraction.run_queue import RunQueue
from coat.pipeline.extraction.trials import Peer
from coat.pipeline.extraction.unit_queue import UnitTask
from coat.pipeline.plan.units import Unit
from coat.pipeline.worker.config import WorkerConfig, threads_of
from coat.pipeline.worker.report import UnitReport

MAX_FAILED_STARTS = 3  # workers that fail one after the other before any is ready: the fault is not a node's
GROWTH_S = 10.0  # between looks at how large the cluster is
NO_WORKER_WARNING_S = 60.0  # without any worker, before and between saying so
PLACING_S = 120.0  # that a worker is waited for which has no node yet, where others could not work
LOCATING_S = 10.0


@dataclass(frozen=True)
class Place:
    """Where an actor lives. `node`: as Ray calls it."""

    node: str
    process: str  # host:pid


class WorkerActor:
    """Says where it is before it loads its experts: a node on which nothing loads is known by its name."""

    def __init__(self, configs: Sequence[WorkerConfig]) -> None:
        self.configs = configs

    def place(self) -> Place:
        import ray

        return Place(ray.get_runtime_context().get_node_id(), f"{socket.gethostname()}:{os.getpid()}")

    def load(self) -> bool:
        from coat.pipeline.worker.crew import Crew  # torch: the driver imports this module, too

        self.crew = Crew(self.configs)
        return True

    def run(self, expert: str, unit: Unit, cut: Cut, witnesses: Sequence[str]) -> UnitReport:
        return self.crew.run(expert, unit, cut, witnesses)


@dataclass(eq=False)
class PoolWorker(Peer):
    """One actor of the pool and the tasks it has in hand, by object reference, oldest first."""

    actor: Any = None
    place: Any = None  # reference to its Place
    hired: float = field(default_factory=time.monotonic)
    device_deaths: int = 0  # of it and of those whose place it took, since a unit went well of the expert that did it
    lost_by: str = ""  # that expert
    in_hand: dict[Any, UnitTask] = field(default_factory=dict)
    last_report: float = 0.0  # when it last gave a report, or was given work with nothing in hand

    @property
    def cuts_in_hand(self) -> int:
        return len({task.turn for task in self.in_hand.values()})


class Staff:
    """Actors come and go. They never restart by themselves: Ray would keep what they had in hand for a node that may
    never come. `cluster.workers` are asked for at once; those that find no room wait until a node comes. Up to
    `cluster.max_workers` more are hired as the cluster grows.
    """

    def __init__(self, queue: RunQueue, configs: Sequence[WorkerConfig], cluster: Cluster) -> None:
        self.queue, self.configs, self.cluster = queue, configs, cluster
        self.workers: list[PoolWorker] = []
        self.starting: dict[Any, PoolWorker] = {}  # by the references of their places and of their loading
        self.failed_starts = 0  # crashes, since one was ready
        self.start_faults: list[str] = []  # of workers that could not load, before another was ready
        self.avoided: set[str] = set()  # nodes
        self.lost = 0  # workers that are not replaced: there is no other node for them
        self.heirs: list[tuple[int, str]] = []  # device deaths that the next workers take over, and whose they are
        self.last_growth = float("-inf")
        self.idle_since = self.warned = time.monotonic()  # since when no worker was up; when that was said

    def grow(self, work: int) -> None:
        """Hire up to the number asked for, and as far as the cluster has room, never more than have `work`."""
        if time.monotonic() - self.last_growth < GROWTH_S:
            return
        self.last_growth = time.monotonic()
        least, most = self.cluster.workers, self.cluster.max_workers or self.cluster.workers
        target = least if most <= least else max(least, min(most, self.room()))
        for _ in range(min(target - self.lost, work) - len(self.workers)):
            self.hire()

    def hurry(self) -> None:
        """Hire at once where somebody is missing."""
        self.last_growth = float("-inf")

    def hire(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

        options: dict[str, Any] = {}
        if self.avoided:
            elsewhere: Any = {"ray.io/node-id": NotIn(*sorted(self.avoided))}
            options["scheduling_strategy"] = NodeLabelSchedulingStrategy(hard=elsewhere)
        actor_class: Any = ray.remote(WorkerActor).options(
            num_cpus=self.cluster.cpus_per_worker,
            num_gpus=self.cluster.gpus_per_worker,
            max_concurrency=threads_of(len(self.configs)) + 1,
            max_restarts=0,
            **options,
        )
        actor = actor_class.remote(self.configs)
        worker = PoolWorker(actor=actor, place=actor.place.remote())
        worker.device_deaths, worker.lost_by = self.heirs.pop() if self.heirs else (0, "")
        self.workers.append(worker)
        self.starting |= {worker.place: worker, actor.load.remote(): worker}

    def room(self) -> int:
        """Workers that all nodes could hold on which one may work."""
        return worker_capacity(self.cluster, without=self.avoided)

    def more_come(self) -> bool:
        """Whether other workers start up: on a node already, or soon on one that has room."""
        placed = [w for w in self.workers if w.node]
        if any(not w.ready for w in placed):
            return True
        waiting = [w for w in self.workers if not w.node and time.monotonic() - w.hired < PLACING_S]
        return bool(waiting) and self.room() > sum(w.node not in self.avoided for w in placed)

    def answered(self, worker: PoolWorker, answer: Place | bool) -> None:
        """A worker says where it is, or that it is ready."""
        if isinstance(answer, Place):
            worker.node, worker.name = answer.node, answer.process
        else:
            worker.ready, self.failed_starts = True, 0

    def start_failed(self, worker: PoolWorker, fault: str) -> None:
        """A worker could not load; `check` judges it by the others."""
        self.locate(worker)
        self.dismiss(worker)
        self.leave(worker.node)
        self.start_faults.append(f"{worker.name} cannot start: {fault}")
        self.hurry()

    def locate(self, worker: PoolWorker) -> None:
        import ray
        from ray.exceptions import RayError

        if not worker.node:
            try:
                self.answered(worker, ray.get(worker.place, timeout=LOCATING_S))
            except RayError:
                return  # it died before it could say so

    def check(self) -> None:
        """Put aside who could not start, where others can. RunError where nobody is left, or all fail to start."""
        if any(w.ready for w in self.workers):
            self.idle_since = self.warned = time.monotonic()
            for fault in self.start_faults:
                self.say_put_aside(fault)
            self.start_faults.clear()
        elif len(self.start_faults) >= MAX_FAILED_STARTS or (self.start_faults and not self.more_come()):
            raise RunError(f"{self.queue.experts}: {self.start_faults[-1]}; no other worker is up")
        elif self.queue.put_aside and time.monotonic() - self.idle_since > PLACING_S and not self.more_come():
            raise RunError(
                f"{self.queue.experts}: no worker is left; the last that was put aside: {self.queue.put_aside[-1]}"
            )
        elif time.monotonic() - self.warned > NO_WORKER_WARNING_S:
            self.warned = time.monotonic()
            self.warn_without_workers()

    def warn_without_workers(self) -> None:
        """Say it when nothing goes on because the cluster has no room for a worker."""
        gpus = f" and {self.cluster.gpus_per_worker:g} GPUs" if self.cluster.gpus_per_worker else ""
        self.queue.say(
            f"no worker is up yet: each needs {self.cluster.cpus_per_worker:g} CPUs{gpus} of the Ray cluster, "
            f"which has room for {self.room()} in all, and time to load its expert; waiting"
        )

    def put_aside(self, worker: PoolWorker, fault: str) -> None:
        """Of a worker that gives up what others do well."""
        self.dismiss(worker)
        self.leave(worker.node)
        self.say_put_aside(f"{worker.name} gave up units that went well elsewhere: {fault}")
        self.hurry()

    def say_put_aside(self, what: str) -> None:
        self.queue.put_aside.append(what)
        self.queue.say(f"worker put aside: {what}; its units go to others, its node gets no new worker in this run")

    def leave(self, node: str) -> None:
        """Hire no more on a node. Where there is no other, one worker less is hired."""
        if node and worker_capacity(self.cluster, without={*self.avoided, node}):
            self.avoided.add(node)
        else:
            self.lost += 1

    def dismiss(self, worker: PoolWorker) -> None:
        import ray

        ray.kill(worker.actor)
        self.workers.remove(worker)
        for ref in [r for r, w in self.starting.items() if w is worker]:
            del self.starting[ref]

    def dismiss_all(self) -> None:
        for worker in list(self.workers):
            self.dismiss(worker)
