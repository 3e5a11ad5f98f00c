"""The queues of all experts of a run: units that are cut alike go to one worker together.

Each expert's queue (`unit_queue.py`) decides by itself what becomes of its units. Knows neither threads nor Ray.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from coat.pipeline.cluster.ray_errors import DeathCause
from coat.pipeline.decoding.shared_audio import Cut
from coat.pipeline.extraction.unit_queue import UnitQueue, UnitTask
from coat.pipeline.worker.report import UnitReport


@dataclass(frozen=True)
class Handout:
    """What a worker gets at once: of one expert or of several a unit, all of the same cut."""

    cut: Cut
    tasks: tuple[UnitTask, ...]

    @property
    def suspect(self) -> bool:
        return any(task.suspect for task in self.tasks)


class RunQueue:
    """The queues of one or several experts, as one."""

    def __init__(self, queues: Sequence[UnitQueue], say: Callable[[str], None]) -> None:
        self.queues = {queue.config.expert: queue for queue in queues}
        self.say = say  # what concerns all of them
        self.put_aside: list[str] = []  # workers, and why: a line each
        self.numbers = itertools.count(1)  # of handouts

    @property
    def experts(self) -> str:
        return ", ".join(self.queues)

    def __len__(self) -> int:
        """Cuts that are still to be handed out, at least."""
        return max(len(queue) for queue in self.queues.values())

    def take(self, idle: bool = True, untried: bool = False) -> Handout | None:
        """The next cut, for a worker that is `idle` or has others in hand; None where there is none for it now.

        A unit that may kill its worker goes alone to one that is idle. `untried`: none of those that came back.
        """
        returned = [] if untried else [queue for queue in self.queues.values() if queue.returned]
        if returned and not idle:
            return None
        first = [task for queue in returned or self.queues.values() if (task := queue.peek(untried))]
        if not first:
            return None
        chosen = first[0] if returned else min(first, key=lambda task: task.turn)
        alike = [chosen] if chosen.suspect else [t for t in first if t.turn == chosen.turn and not t.suspect]
        return self.handout(task for t in alike if (task := self.queues[t.expert].take(untried)))

    def handout(self, tasks: Iterable[UnitTask]) -> Handout:
        """Of these tasks, which are in hand."""
        tasks = tuple(tasks)
        return Handout(Cut(next(self.numbers), tuple(task.expert for task in tasks)), tasks)

    def send_heartbeat(self) -> None:
        """To be called every few seconds: tells other runs that this one lives."""
        for queue in self.queues.values():
            queue.send_heartbeat()

    def finished(self, task: UnitTask, report: UnitReport) -> None:
        self.queues[task.expert].finished(task, report)

    def deadline(self, in_hand: Iterable[UnitTask]) -> float:
        """Seconds after which a worker that has these in hand, oldest first, and says nothing is given up.

        It has the units of the oldest cut in hand at the same time, so the most patient of them counts.
        """
        tasks = list(in_hand)
        oldest = [task for task in tasks if task.turn == tasks[0].turn]
        return max(self.queues[task.expert].deadline(task) for task in oldest)

    def given_back(self, task: UnitTask) -> None:
        self.queues[task.expert].given_back(task)

    def worker_died(self, tasks: Sequence[UnitTask], cause: DeathCause) -> Iterator[UnitReport]:
        """Take back what a worker had in hand that died; a row that is alone and kills is recorded."""
        for expert in {task.expert for task in tasks}:
            self.queues[expert].worker_deaths += 1
        for task in tasks:
            yield from self.queues[task.expert].worker_died(task, cause)

    def unproven(self) -> Iterator[tuple[str, int]]:
        """Experts with rows that lose their device before any unit went well, and how many."""
        return ((expert, len(queue.unproven)) for expert, queue in self.queues.items() if queue.unproven)
