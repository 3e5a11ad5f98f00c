"""What a run did, as JSON lines in the store: `<target set>/runs/<run>.jsonl`.

Events: started (what, where), planned (how much), unit (a report: counts, seconds by stage, errors), said (a line
for people), and finished or stopped (why). For people and for `coat status`; nothing resumes from it.
"""

import json
import os
import socket
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from coat import __version__
from coat.manifests import storage
from coat.manifests.errors import RunError
from coat.pipeline.plan.planning import ExtractionPlan
from coat.pipeline.store.layout import RUNS, SPEC
from coat.pipeline.worker.report import UnitReport

PART_S = 60.0  # object stores do not append: a part is put when it is so old
PART_LINES = 500  # ... or so long


class RunLog:
    """Appends events; a `Listener` of its run. On an object store it comes in parts, `<run>.0001.jsonl`."""

    def __init__(self, set_url: str, run: str) -> None:
        self.folder, self.run, self.spec = storage.join(set_url, RUNS), run, storage.join(set_url, SPEC)
        self.local = storage.is_local(set_url)
        self.lines: list[str] = []
        self.part, self.last_flush = 1, time.monotonic()

    def started(self, **facts: Any) -> None:
        here = {"host": socket.gethostname(), "pid": os.getpid(), "coat": __version__}
        self.write("started", run=self.run, **here, **facts)

    def planned(self, plan: ExtractionPlan, covered: int) -> None:
        self.write("planned", covered=covered, units=len(plan.units), audio_seconds=plan.seconds, bytes=plan.bytes)

    def reported(self, report: UnitReport) -> None:
        facts = asdict(report)
        del facts["witnesses"]  # many paths, of use to this run alone
        self.write("unit", **facts)

    def say(self, line: str) -> None:
        self.write("said", line=line)

    def write(self, event: str, **facts: Any) -> None:
        entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        self.lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
        if self.local or len(self.lines) >= PART_LINES or time.monotonic() - self.last_flush > PART_S:
            self.flush()

    def flush(self) -> None:
        if not self.lines:
            return
        data = "".join(self.lines).encode()
        if self.local:
            path = storage.local_path(self.folder) / f"{self.run}.jsonl"
            try:
                path.parent.mkdir(exist_ok=True)  # not its parents: a store that was removed stays removed
                with path.open("ab") as f:
                    f.write(data)
            except OSError as e:
                gone = "" if storage.exists(self.spec) else f"; {SPEC} is gone: was the store removed under the run?"
                raise RunError(f"{path}: cannot be written ({e.strerror}){gone}; see to that, and run again") from e
        else:
            storage.write_bytes(storage.join(self.folder, f"{self.run}.{self.part:04d}.jsonl"), data)
            self.part += 1
        self.lines, self.last_flush = [], time.monotonic()
