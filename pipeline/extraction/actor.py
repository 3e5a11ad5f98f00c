"""A worker in a Ray actor, and where it is."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from coat.pipeline.plan.units import Unit
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.report import UnitReport


@dataclass(frozen=True)
class Place:
    """Where an actor lives. `node`: as Ray calls it."""

    node: str
    process: str  # host:pid


class WorkerActor:
    """Says where it is before it loads its expert: a node on which nothing loads is known by its name."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config

    def place(self) -> Place:
        import ray

        return Place(ray.get_runtime_context().get_node_id(), f"{socket.gethostname()}:{os.getpid()}")

    def load(self) -> bool:
        from coat.pipeline.worker.worker import Worker  # torch: the driver imports this module, too

        self.worker = Worker(self.config)
        return True

    def run(self, unit: Unit, witnesses: Sequence[str]) -> UnitReport:
        return self.worker.run(unit, witnesses)
