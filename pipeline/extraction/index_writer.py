"""Writes index segments in the background of a run, as its units are committed (pipeline/store/segments.py)."""

import json
import queue
import threading
from collections.abc import Iterable

import pyarrow as pa

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError, one_line
from coat.pipeline.plan.planning import ExtractionPlan
from coat.pipeline.store.layout import DONE, SPEC
from coat.pipeline.store.rows import ROWS_SCHEMA
from coat.pipeline.store.segments import NUMBER, SEGMENT_UNITS, unit_rows, write_segment
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.worker.report import UnitReport

LEAST_UNITS = 200  # that a segment is worth a file
READ_UNITS = 256  # that are read together: two small files each
PAUSE_S = 1.0  # that more are waited for


class IndexWriter:
    """A Listener of its run. What it cannot write is left out: a segment is a cache."""

    def __init__(self, targets: TargetSet) -> None:
        self.targets = targets
        self.waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.ended = threading.Event()
        self.finished = False
        self.error: str | None = None
        self.read: dict[str, tuple[str, bytes, pa.Table]] = {}  # stamp, done.json and rows, of a segment to be written
        self.thread = threading.Thread(target=self.run, name="index", daemon=True)

    def planned(self, plan: ExtractionPlan, covered: int) -> None: ...
    def say(self, line: str) -> None: ...

    def reported(self, report: UnitReport) -> None:
        self.add([report.unit])

    def add(self, units: Iterable[str]) -> None:
        """Units that are committed and in no segment."""
        for unit in units:
            self.waiting.put(unit)
        if not self.thread.ident and self.waiting.qsize() >= LEAST_UNITS:
            self.thread.start()

    def close(self, finished: bool) -> str | None:
        """Write what is left, where the run came to its end; gives a line where something could not be written."""
        self.finished = finished
        self.ended.set()
        if self.thread.ident:
            self.thread.join()
        return self.error

    def run(self) -> None:
        try:
            while not self.ended.is_set() or (self.finished and not self.waiting.empty()):
                self.read_some()
                if len(self.read) >= SEGMENT_UNITS:
                    self.write()
            if self.finished and len(self.read) >= LEAST_UNITS:
                self.write()
        except (OSError, InputError, RunError, ValueError) as e:
            self.error = f"the index of {self.targets.url} was not written ({one_line(e)}); a resume takes longer"

    def read_some(self) -> None:
        units: list[str] = []
        while len(units) < READ_UNITS and not self.waiting.empty():
            units.append(self.waiting.get())
        if len(units) < READ_UNITS:
            self.ended.wait(PAUSE_S)
        found = storage.in_parallel(self.read_unit, units)
        self.read |= {unit: files for unit, files in zip(units, found, strict=True) if files}

    def read_unit(self, unit: str) -> tuple[str, bytes, pa.Table] | None:
        try:
            data, stamp = storage.read_stamped(self.targets.unit_url(unit, DONE))
            self.targets.writers[unit] = str(json.loads(data).get("writer", ""))
            return stamp, data, self.targets.read_table(unit, ROWS_SCHEMA.names)
        except FileNotFoundError:
            return None  # dropped meanwhile

    def write(self) -> None:
        if not storage.exists(storage.join(self.targets.url, SPEC)):
            return  # the store was removed under the run, which will say so
        stamps = {unit: stamp for unit, (stamp, _, _) in self.read.items()}
        done = {unit: json.loads(data) for unit, (_, data, _) in self.read.items()}
        parts = unit_rows(done, [table for _, _, table in self.read.values()])
        self.read = {}
        table = parts.table.select(ROWS_SCHEMA.names).append_column(NUMBER, [parts.number_N])
        write_segment(self.targets.url, stamps, parts.units, table)
