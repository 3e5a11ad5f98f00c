"""Writes index segments in the background of a run, as its units are committed (pipeline/store/segments.py)."""

import json
import threading
from collections.abc import Iterable

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError, one_line
from coat.pipeline.plan.planning import ExtractionPlan
from coat.pipeline.store.layout import DONE, SPEC
from coat.pipeline.store.rows import ROWS_SCHEMA
from coat.pipeline.store.segments import NUMBER, SEGMENT_UNITS, unit_rows, write_segment
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.worker.report import UnitReport

LEAST_UNITS = 200  # that the last segment of a run is worth a file
REQUESTS = 16  # at the same time: the run needs the others


class IndexWriter:
    """A Listener of its run. What it cannot write is left out: a segment is a cache."""

    def __init__(self, targets: TargetSet) -> None:
        self.targets = targets
        self.waiting: list[str] = []
        self.error: str | None = None
        self.thread: threading.Thread | None = None

    def planned(self, plan: ExtractionPlan, covered: int) -> None: ...
    def say(self, line: str) -> None: ...

    def reported(self, report: UnitReport) -> None:
        self.add([report.unit])

    def add(self, units: Iterable[str]) -> None:
        """Units that are committed and in no segment."""
        self.waiting += units
        if len(self.waiting) >= SEGMENT_UNITS and not (self.thread and self.thread.is_alive()):
            self.begin(len(self.waiting) - len(self.waiting) % SEGMENT_UNITS)

    def begin(self, count: int) -> None:
        batch, self.waiting = self.waiting[:count], self.waiting[count:]
        self.thread = threading.Thread(target=self.write, args=(batch,), name="index", daemon=True)
        self.thread.start()

    def close(self, finished: bool) -> str | None:
        """Write what is left, where the run came to its end; gives a line where something could not be written."""
        if self.thread:
            self.thread.join()
        if finished and len(self.waiting) >= LEAST_UNITS:
            self.begin(len(self.waiting))
        if self.thread:
            self.thread.join()
        return self.error

    def write(self, units: list[str]) -> None:
        try:
            for first in range(0, len(units), SEGMENT_UNITS):
                if not storage.exists(storage.join(self.targets.url, SPEC)):
                    return  # the store was removed under the run, which will say so
                index_units(self.targets, units[first : first + SEGMENT_UNITS])
        except (OSError, InputError, RunError) as e:
            self.error = f"the index of {self.targets.url} was not written ({one_line(e)}); a resume takes longer"


def index_units(targets: TargetSet, units: list[str]) -> None:
    """One segment of the units, of those that are there."""

    def read(unit: str) -> tuple[str, bytes] | None:
        try:
            data, stamp = storage.read_stamped(targets.unit_url(unit, DONE))
        except FileNotFoundError:
            return None
        done = json.loads(data)
        targets.writers[unit] = str(done.get("writer", ""))
        return stamp, data

    found = dict(zip(units, storage.in_parallel(read, units, REQUESTS), strict=True))
    done = {unit: json.loads(pair[1]) for unit, pair in found.items() if pair}
    stamps = {unit: pair[0] for unit, pair in found.items() if pair}
    if done:
        parts = unit_rows(done, storage.in_parallel(targets.read_table, done, REQUESTS))
        table = parts.table.select(ROWS_SCHEMA.names).append_column(NUMBER, [parts.number_N])
        write_segment(targets.url, stamps, parts.units, table)
