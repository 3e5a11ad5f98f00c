"""The units of a run that are still to be done, and what becomes of one whose worker died.

Knows neither threads nor Ray: a runner takes tasks, and says of each that it was finished or that its worker died.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coat.manifests import storage
from coat.pipeline.cluster.ray_errors import DeathCause
from coat.pipeline.extraction.deadline import Deadline
from coat.pipeline.extraction.lease import HEARTBEAT_S, Lease
from coat.pipeline.plan.units import Unit
from coat.pipeline.store.layout import DONE, UNITS
from coat.pipeline.store.rows import Row
from coat.pipeline.store.unit_writer import commit_unit
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.report import UnitReport

BLOCK_S = 2.0  # that a block of claimed units should last
MOST_CLAIMED = 4096
HARM: dict[DeathCause, float] = {"crashed": 1.0, "oom": 1.0, "timeout": 1.5, "device": 1.5, "lost": 0.25}
FATAL_HARM = 3.0  # summed harm after which a unit is halved, and a row that is alone recorded as failed
SHORTEST_DEADLINE_S = 60.0  # of a part of a unit, unless the unit's own is shorter
ADVICE: dict[DeathCause, str] = {
    "crashed": "the worker died of this row each time it was tried; listen to its audio",
    "oom": "the worker ran out of memory on this row each time it was tried; shorten it or give workers more memory",
    "timeout": "the worker did not answer within the deadline each time this row was tried",
    "device": "the device was lost each time this row was tried, and did other units well; listen to its audio",
    "lost": "the node was lost each time this row was tried",
}


@dataclass(frozen=True)
class UnitTask:
    """A unit and what it has done. One that a dying worker had in hand is run alone: only one that kills is counted."""

    unit: Unit
    expert: str = ""  # as the run calls it
    turn: int = 0  # of its cut, in the order of the run: the units of several experts that are cut alike have the same
    harm: float = 0.0
    deadline: float | None = None  # seconds; None: as the queue learns
    units_before: int = 0  # that had gone well when it first killed its worker

    @property
    def suspect(self) -> bool:
        return self.harm > 0


class UnitQueue:
    """Hands out the units of a plan in the given order, leaving to other runs what they have in hand."""

    def __init__(
        self,
        units: Sequence[Unit],
        order: Iterable[int],
        config: WorkerConfig,
        lease: Lease,
        say: Callable[[str], None],
        deadline: float | None = None,
        turns: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        """`order`: numbers of units; `turns`: of each unit, where the queues of several experts go along together."""
        self.turns = turns
        self.units, self.config, self.lease, self.say = units, config, lease, say
        self.fixed_deadline = deadline
        self.untried = deque(order)  # numbers of units; a unit is made when it is taken
        self.claimed: deque[UnitTask] = deque()  # by our lease, to be handed out next
        self.block, self.last_claim = 1, float("-inf")  # units of a claim, and when the last was made
        self.returned: deque[UnitTask] = deque()  # from workers that died
        self.deferred: deque[UnitTask] = deque()  # in the hands of another run
        self.deferred_checked = 0.0  # when the deferred were last offered again
        self.in_hand: dict[str, UnitTask] = {}
        self.learnt = Deadline()
        self.longest_deadline = 0.0  # seconds that any worker was given
        self.worker_deaths = 0
        self.units_well = 0  # with rows that have targets
        self.unproven: list[UnitTask] = []  # rows that lost their device before any unit went well
        self.put_aside: list[str] = []  # workers, and why: a line each
        self.committed_elsewhere = 0  # units that another run committed meanwhile

    def __len__(self) -> int:
        """Units that are still to be handed out."""
        return len(self.returned) + len(self.claimed) + len(self.untried) + len(self.deferred)

    def peek(self, untried: bool = False) -> UnitTask | None:
        """The task that `take` would give."""
        queue = self.returned if self.returned and not untried else self.claimed
        if queue is self.claimed and not queue:
            self.claim_block()
        return queue[0] if queue else None

    def take(self, untried: bool = False) -> UnitTask | None:
        """The next task, one that came back before others; None where there is none for this run now.

        `untried`: none that came back, for a worker that may be at fault itself.
        """
        task = self.peek(untried)
        if task is not None:
            queue = self.returned if self.returned and not untried else self.claimed
            queue.popleft()
            self.in_hand[task.unit.name] = task
            self.send_heartbeat()
        return task

    def claim_block(self) -> None:
        """Claim the next units of the plan, so many that it is seldom done, and leave out what is not ours to do."""
        tasks = list(self.next_tasks())
        if not tasks:
            return
        names = [task.unit.name for task in tasks]
        left = self.lease.claim(names, self.in_hand)
        self.deferred.extend(task for task, name in zip(tasks, names, strict=True) if name in left)
        ours = [(task, name) for task, name in zip(tasks, names, strict=True) if name not in left]
        committed = [False] * len(ours)
        if self.lease.others_seen:
            committed = list(storage.in_parallel(self.is_committed, [name for _, name in ours]))
        self.committed_elsewhere += sum(committed)
        self.claimed.extend(task for (task, _), done in zip(ours, committed, strict=True) if not done)

    def next_tasks(self) -> Iterator[UnitTask]:
        """Of the plan, in its order; where that is at its end, from time to time what was left to other runs."""
        now = time.monotonic()
        if self.untried:
            for _ in range(self.next_block(now)):
                number = self.untried.popleft()
                turn = number if self.turns is None else int(self.turns[number])
                yield UnitTask(self.units[number], self.config.expert, turn, deadline=self.fixed_deadline)
        elif self.deferred and now - self.deferred_checked > HEARTBEAT_S:
            self.deferred_checked = now
            deferred = list(self.deferred)
            self.deferred.clear()
            yield from deferred

    def next_block(self, now: float) -> int:
        """Twice as many where the last ones were gone soon, half where they lasted; a small share beside other runs."""
        lasted, self.last_claim = now - self.last_claim, now
        if lasted < BLOCK_S / 2:
            self.block = min(2 * self.block, MOST_CLAIMED)
        elif lasted > 2 * BLOCK_S:
            self.block = max(self.block // 2, 1)
        share = len(self.untried)
        if others := self.lease.living_others:
            share = max(1, share // (4 * (1 + others)))
        return min(self.block, share)

    def is_committed(self, name: str) -> bool:
        return storage.exists(storage.join(self.config.set_url, UNITS, name, DONE))

    def send_heartbeat(self) -> None:
        """To be called every few seconds: tells other runs that this one lives."""
        self.lease.hold(self.in_hand)

    def finished(self, task: UnitTask, report: UnitReport) -> None:
        del self.in_hand[task.unit.name]
        self.learnt.learn(task.unit, report)
        if report.ok:
            self.units_well += 1
            self.returned.extend(self.unproven)
            self.unproven.clear()

    def deadline(self, task: UnitTask) -> float:
        """Seconds after which a worker that has this task and says nothing is given up."""
        seconds = self.learnt.of(task.unit) if task.deadline is None else task.deadline
        self.longest_deadline = max(self.longest_deadline, seconds)
        return seconds

    def given_back(self, task: UnitTask) -> None:
        """Take a task back whose worker was put aside: no harm was done by it."""
        del self.in_hand[task.unit.name]
        self.returned.append(task)

    def worker_died(self, task: UnitTask, cause: DeathCause) -> Iterator[UnitReport]:
        """Take a task back whose worker died: it is run again, halved, or recorded as failed with its one row."""
        name, rows = task.unit.name, task.unit.rows
        del self.in_hand[name]
        harm = task.harm + HARM[cause]
        before = task.units_before if task.suspect else self.units_well

        def again(task: UnitTask, unit: Unit, deadline: float | None) -> UnitTask:
            return replace(task, unit=unit, harm=FATAL_HARM - HARM[cause], deadline=deadline, units_before=before)

        if harm < FATAL_HARM:
            self.say(f"a worker was lost ({cause}) with unit {name} in hand; it is run again")
            self.returned.append(replace(task, harm=harm, units_before=before))
        elif len(rows) > 1:
            self.say(f"unit {name} ({len(rows)} rows) keeps losing its worker ({cause}); it is halved to find the row")
            for half in task.unit.halves():
                shorter = self.deadline_of_half(task, half)
                self.returned.append(again(task, half, shorter))
        elif cause == "device" and self.units_well == before:
            # A device that does nothing well is broken, whatever its rows: none of them is judged by it.
            self.say(f"unit {name} (one row) loses its device; it waits until a unit has gone well")
            self.unproven.append(again(task, task.unit, task.deadline))
        else:
            spec, facts = self.config.spec, {"attempt": task.unit.attempt}
            failed = [
                Row(name, row.utterance.id, row.digest, None, 0.0, 0, 0, "failed", f"{cause}: {ADVICE[cause]}")
                for row in rows
            ]
            commit_unit(self.config.set_url, name, np.empty((0, spec.dim), spec.dtype), failed, facts)
            yield UnitReport.of_failed(name, self.config.expert, failed)

    def deadline_of_half(self, task: UnitTask, half: Unit) -> float | None:
        """Shorter in proportion, where the whole's was given or learnt; before that nobody knows what is slow."""
        if task.deadline is None and not self.learnt.known:
            return None
        whole = self.deadline(task)
        share = half.seconds / task.unit.seconds if task.unit.seconds else 0.5
        return max(whole * share, min(whole, SHORTEST_DEADLINE_S))
