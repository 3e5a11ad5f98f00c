"""All experts of one worker: each has its own model and commits; audio and threads are shared."""

import threading
from collections.abc import Sequence

from coat.pipeline.decoding.shared_audio import Cut, CutAudio
from coat.pipeline.plan.units import Unit
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.hands import Hands
from coat.pipeline.worker.report import UnitReport
from coat.pipeline.worker.worker import Worker


class Crew:
    """One or several loaded experts; `run` extracts and commits a unit of one of them, from several threads."""

    def __init__(self, configs: Sequence[WorkerConfig]) -> None:
        self.hands = Hands(configs[0])
        self.workers = {config.expert: Worker(config, self.hands) for config in configs}
        self.lock = threading.Lock()
        self.cuts: dict[int, CutAudio] = {}  # by their numbers: those of several experts that are in hand

    def run(self, expert: str, unit: Unit, cut: Cut, witnesses: Sequence[str] = ()) -> UnitReport:
        """As `Worker.run`. The units of a cut share what is decoded; each is committed, or given up, by itself."""
        worker = self.workers[expert]
        if len(cut.experts) == 1:
            return worker.run(unit, witnesses, cut.number)
        with self.lock:
            shared = self.cuts.setdefault(cut.number, CutAudio(cut, worker.patience()))
        try:
            shared.begin(expert, [row.digest for row in unit.rows])
            return worker.run(unit, witnesses, cut.number, shared)
        finally:
            if shared.end(expert):
                with self.lock:
                    del self.cuts[cut.number]

    def stop(self) -> None:
        """Units in hand are dropped at their next batch."""
        self.hands.stopped.set()
