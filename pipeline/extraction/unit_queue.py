"""The units of a run that are still to be done, and what becomes of one whose worker died.

Knows neither threads nor Ray: a runner takes tasks, and says of each that it was finished or that its worker died.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from coat.manifests import storage
from coat.pipeline.cluster.ray_errors import Cause
from coat.pipeline.extraction.lease import BEAT_S, Lease
from coat.pipeline.plan.units import Unit
from coat.pipeline.store.layout import DONE, UNITS
from coat.pipeline.store.target_set import Row
from coat.pipeline.store.unit_writer import commit_unit
from coat.pipeline.worker.config import Job
from coat.pipeline.worker.report import Report

HARM: dict[Cause, float] = {"crashed": 1.0, "oom": 1.0, "timeout": 1.5, "lost": 0.25}
FATAL = 3.0  # harm after which a unit is halved, and a row that is alone recorded as failed
SHORTEST_DEADLINE_S = 60.0  # of a part of a unit, unless the unit's own is shorter
FIRST_DEADLINE_S = 1200.0  # before the speed is known: this and 20 times the audio of a unit
KNOWN_DEADLINE_S = 600.0  # at least, once it is: ten times what the slowest unit so far would take
ADVICE: dict[Cause, str] = {
    "crashed": "the worker died of this row each time it was tried; listen to its audio",
    "oom": "the worker ran out of memory on this row each time it was tried; shorten it or give workers more memory",
    "timeout": "the worker did not answer within the deadline each time this row was tried",
    "lost": "the node was lost each time this row was tried",
}


@dataclass(frozen=True)
class Task:
    """A unit on its way. One that was in a dying worker's hand is run alone, so that only the guilty are counted."""

    unit: Unit
    harm: float = 0.0
    deadline: float | None = None  # seconds; None: as the queue learns

    @property
    def suspect(self) -> bool:
        return self.harm > 0


class Queue:
    """Hands out the units of a plan in the given order, leaving to other runs what they have in hand."""

    def __init__(
        self,
        units: Sequence[Unit],
        order: Iterable[int],
        job: Job,
        lease: Lease,
        say: Callable[[str], None],
        deadline: float | None = None,
    ) -> None:
        self.units, self.job, self.lease, self.say = units, job, lease, say
        self.fixed_deadline = deadline
        self.numbers = deque(order)  # of units that nobody has tried; units are made when they are taken
        self.returned: deque[Task] = deque()  # from workers that died
        self.deferred: deque[Task] = deque()  # in the hands of another run
        self.looked = 0.0  # when the deferred were last looked at
        self.hand: dict[str, Task] = {}
        self.slowest = 0.0  # seconds per second of audio
        self.deaths = 0
        self.elsewhere = 0  # units that another run committed meanwhile

    def __len__(self) -> int:
        """Units that are still to be handed out."""
        return len(self.returned) + len(self.numbers) + len(self.deferred)

    def take(self, idle: bool = True) -> Task | None:
        """The next task, for a worker that is `idle` or has others in hand; None where there is none for it now."""
        if self.returned and not idle:
            return None
        while task := self.next_task():
            name = task.unit.name
            if self.left_to_others(name):
                self.deferred.append(task)
            elif self.lease.contested and self.is_committed(name):
                self.elsewhere += 1
            else:
                self.hand[name] = task
                self.beat()
                return task
        return None

    def next_task(self) -> Task | None:
        if self.returned:
            return self.returned.popleft()
        if self.numbers:
            return Task(self.units[self.numbers.popleft()], deadline=self.fixed_deadline)
        if self.deferred and time.monotonic() - self.looked > BEAT_S:
            self.looked = time.monotonic()
            waiting, self.deferred = self.deferred, deque()
            self.returned.extend(waiting)
            return self.returned.popleft()
        return None

    def left_to_others(self, name: str) -> bool:
        """Whether another run has it, before or just after we said that we take it; the older run keeps it."""
        if name in self.lease.elsewhere():
            return True
        self.lease.hold([*self.hand, name])
        rival = self.lease.elsewhere().get(name)
        return rival is not None and rival < self.lease.run

    def is_committed(self, name: str) -> bool:
        return storage.exists(storage.join(self.job.set_url, UNITS, name, DONE))

    def beat(self) -> None:
        """To be called every few seconds: tells other runs that this one lives."""
        self.lease.hold(self.hand)

    def finished(self, task: Task, report: Report) -> None:
        del self.hand[task.unit.name]
        if report.audio_seconds:
            self.slowest = max(self.slowest, report.unit_seconds / report.audio_seconds)

    def deadline(self, task: Task) -> float:
        """Seconds after which a worker that has this task and says nothing is given up."""
        if task.deadline is not None:
            return task.deadline
        if not self.slowest:
            return FIRST_DEADLINE_S + 20 * task.unit.seconds
        return max(KNOWN_DEADLINE_S, 10 * self.slowest * task.unit.seconds)

    def died(self, task: Task, cause: Cause) -> Iterator[Report]:
        """Take a task back whose worker died: it is run again, halved, or recorded as failed with its one row."""
        name, rows = task.unit.name, task.unit.rows
        del self.hand[name]
        harm = task.harm + HARM[cause]
        deadline = self.deadline(task)
        if harm < FATAL:
            self.say(f"a worker was lost ({cause}) with unit {name} in hand; it is run again")
            self.returned.append(Task(task.unit, harm, task.deadline))
        elif len(rows) > 1:
            self.say(f"unit {name} ({len(rows)} rows) keeps losing its worker ({cause}); it is halved to find the row")
            for half in task.unit.halves():
                share = half.seconds / task.unit.seconds if task.unit.seconds else 0.5
                shorter = max(deadline * share, min(deadline, SHORTEST_DEADLINE_S))
                self.returned.append(Task(half, FATAL - HARM[cause], shorter))
        else:
            failed = [
                Row(name, p.utterance.id, p.digest, None, 0.0, 0, 0, "failed", f"{cause}: {ADVICE[cause]}")
                for p in rows
            ]
            commit_unit(self.job.set_url, name, np.empty((0, self.job.spec.dim), self.job.spec.dtype), failed, {})
            yield Report.of_failed(name, failed)
