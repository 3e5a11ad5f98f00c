"""What a run did, in numbers, and the state of the whole manifest after it."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from coat.manifests.errors import RunError
from coat.pipeline.extraction.listeners import Listener
from coat.pipeline.plan.planning import ExtractionPlan
from coat.pipeline.store.outcomes import Outcomes
from coat.pipeline.worker.report import UnitReport


@dataclass
class Summary:
    """One expert's run, and the state of the whole manifest after it. Counts are rows."""

    expert: str
    fingerprint: str
    set_url: str
    rows: int
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    units_done: int = 0  # by this run
    audio_seconds: float = 0.0  # extracted by this run
    bytes: int = 0  # written by this run
    frames: int = 0
    wall_seconds: float = 0.0
    startup_seconds: float = 0.0  # until the first unit was begun: weights, Ray
    busy_seconds: float = 0.0  # from then until the last report
    forward_seconds: float = 0.0
    padding_share: float = 0.0  # of the audio that the expert was given
    decode_seconds: float = 0.0  # of all decoding threads together
    wait_seconds: float = 0.0  # of experts, for audio
    write_seconds: float = 0.0
    halvings: int = 0  # of batches, for want of memory
    batch_seconds: float | None = None  # that a pass holds at the end, at the worker with the least; None: as planned
    put_aside: list[str] = field(default_factory=list)  # workers that could not work, and why
    worker_deaths: int = 0  # with units in hand
    units_elsewhere: int = 0  # that another run committed meanwhile
    reasons: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)  # every failed row: id, error

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of work."""
        return self.audio_seconds / self.busy_seconds if self.busy_seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rtfx": self.rtfx}


def add_reports(summary: Summary, reports: Iterable[UnitReport], started: float, listener: Listener) -> None:
    """Sum up the reports as they come, and pass each on. `started`: when the run began."""
    batches: dict[str, float | None] = {}  # of each worker, at its last unit
    padded, first, last = 0.0, float("inf"), 0.0  # seconds since `started`: first unit begun, last one reported
    for report in reports:
        last = time.perf_counter() - started
        first = min(first, max(0.0, last - report.unit_seconds))
        summary.units_done += 1
        summary.audio_seconds += report.audio_seconds
        summary.bytes += report.bytes
        summary.frames += report.frames
        summary.decode_seconds += report.decode_seconds
        summary.wait_seconds += report.wait_seconds
        summary.forward_seconds += report.forward_seconds
        summary.write_seconds += report.write_seconds
        summary.halvings += report.halvings
        batches[report.worker] = report.batch_seconds
        padded += report.padded_seconds
        listener.reported(report)
    summary.batch_seconds = min((s for s in batches.values() if s is not None), default=None)
    if summary.units_done:
        summary.startup_seconds, summary.busy_seconds = first, last - first
    if padded:
        summary.padding_share = max(0.0, 1 - summary.audio_seconds / padded)


def add_outcomes(summary: Summary, plan: ExtractionPlan, rows: Outcomes) -> None:
    """Count the manifest's rows as they now stand in the store, whichever run put them there."""
    positions = rows.find(plan.digests)
    if gone := int((positions < 0).sum()):
        raise RunError(f"{summary.set_url}: {gone} rows are in no unit; did something else change the store? Run again")
    counts = rows.count(positions)
    summary.ok, summary.failed, summary.skipped = counts.ok, counts.failed, counts.skipped
    summary.reasons = counts.reasons
    summary.failures = [{"id": identity, "error": error} for identity, error in counts.failures]
