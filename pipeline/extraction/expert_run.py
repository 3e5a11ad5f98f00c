"""One expert's part of a run: its lease, plan, queue, log, index and summary. Experts that run together share none."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.extraction.index_writer import IndexWriter
from coat.pipeline.extraction.lease import Lease
from coat.pipeline.extraction.listeners import Committed, Listener, Listeners
from coat.pipeline.extraction.metrics import Metrics
from coat.pipeline.extraction.run_log import RunLog
from coat.pipeline.extraction.run_queue import RunQueue
from coat.pipeline.extraction.summary import ReportSums, Summary
from coat.pipeline.extraction.unit_queue import UnitQueue
from coat.pipeline.plan.planning import ExtractionPlan
from coat.pipeline.store.builds import remove_abandoned_builds
from coat.pipeline.store.outcomes import Outcomes
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_writer import write_spec
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.report import UnitReport

STORE_ERRORS = (OSError, RunError, InputError)  # what a full or removed store may raise


class ExpertRun:
    """In this order: `begin`, `set_plan`; where something is left, `start`, `reported`, `finish` or `stop`, `close`,
    `read_outcomes`; `release` in any case.
    """

    plan: ExtractionPlan
    summary: Summary
    outcomes: Outcomes  # of the target set, as it is known
    listeners: Listeners
    sums: ReportSums
    queue: UnitQueue

    def __init__(self, expert: str, spec: TargetSpec, set_url: str) -> None:
        self.expert, self.spec, self.set_url = expert, spec, set_url
        self.lease = Lease(set_url)
        self.log = RunLog(set_url, self.lease.run)
        self.committed = Committed()
        self.cannot_begin: Exception | None = None

    def begin(self) -> None:
        """Hold the lease, then read what is there.

        An error counts only where something is left to do: a finished store may be on a disk that is read alone.
        """
        remove_abandoned_builds(self.set_url)
        try:
            if storage.exists(self.lease.spec):
                self.lease.begin()
        except STORE_ERRORS as e:
            self.cannot_begin = e
        self.targets = TargetSet(self.set_url, self.spec)
        self.index = IndexWriter(self.targets)

    def set_plan(self, plan: ExtractionPlan) -> None:
        self.plan, self.outcomes = plan, self.targets.outcomes
        self.summary = Summary(self.spec.expert, self.spec.fingerprint, self.set_url, plan.rows)
        if plan.rows:
            write_spec(self.set_url, self.spec)  # also where all is done: a spec.json that was lost comes back
        if plan.units:
            if self.cannot_begin:
                raise self.cannot_begin
            if not self.lease.beats:  # a new store
                self.lease.begin()

    def start(self, listener: Listener, started: float, metrics: Metrics | None, **facts: Any) -> None:
        """Units are about to be handed out. `started`: when the run began; `facts`: for the log."""
        self.sums = ReportSums(self.summary, started)
        more = (metrics,) if metrics else ()
        self.listeners = Listeners(listener, self.log, self.index, self.committed, *more)
        self.index.add(self.targets.not_indexed)
        self.log.started(expert=self.expert, fingerprint=self.spec.fingerprint, **facts)

    def make_queue(self, config: WorkerConfig, turns_of_cuts: NDArray[np.int64], deadline: float | None) -> UnitQueue:
        turns: NDArray[np.int64] = turns_of_cuts[self.plan.units.cuts]
        order: Sequence[int] = np.argsort(turns).tolist()
        self.queue = UnitQueue(self.plan.units, order, config, self.lease, self.listeners.say, deadline, turns)
        return self.queue

    def reported(self, report: UnitReport) -> None:
        self.sums.add(report)
        self.listeners.reported(report)

    def finish(self, queue: RunQueue) -> None:
        """All units have been done; `queue`: of all experts that ran together."""
        self.summary.worker_deaths = self.queue.worker_deaths
        self.summary.unit_deadline_s = self.queue.longest_deadline
        self.summary.units_elsewhere = self.queue.committed_elsewhere
        self.summary.put_aside = queue.put_aside
        self.log.write("finished", summary=self.summary.to_dict())

    def stop(self, why: str) -> None:
        with suppress(*STORE_ERRORS):  # the error itself matters more than its line in the log
            self.log.write("stopped", why=why)

    def close(self, finished: bool, listener: Listener) -> None:
        with suppress(*STORE_ERRORS):
            self.log.flush()
        if line := self.index.close(finished):
            listener.say(line)

    def read_outcomes(self) -> None:
        """As they are after the run."""
        remove_abandoned_builds(self.set_url)
        targets = self.targets.refreshed() if self.lease.others_seen else self.targets  # they committed, too
        self.outcomes = targets.with_units(self.committed.units)[0]

    def release(self) -> None:
        with suppress(*STORE_ERRORS):
            self.lease.release()
