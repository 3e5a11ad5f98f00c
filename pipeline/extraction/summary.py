"""What a run did, in numbers, and the state of the whole manifest after it."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from coat.manifests.errors import RunError
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
    clips_decoded: int = 0  # for this expert
    audio_requests: int = 0  # audio files opened, objects fetched, for this expert
    saved_decode_seconds: float = 0.0  # where another expert of the run had the same audio before (--share-decode)
    saved_clips: int = 0
    saved_requests: int = 0
    wait_seconds: float = 0.0  # of experts, for audio
    write_seconds: float = 0.0
    halvings: int = 0  # of batches, for want of memory
    batch_seconds: float | None = None  # that a pass holds at the end, at the worker with the least; None: as planned
    put_aside: list[str] = field(default_factory=list)  # workers that could not work, and why
    worker_deaths: int = 0  # with units in hand
    unit_deadline_s: float = 0.0  # the longest that a worker might have said nothing of a unit before it was given up
    units_elsewhere: int = 0  # that another run committed meanwhile
    reasons: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)  # every failed row: id, error

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of work."""
        return self.audio_seconds / self.busy_seconds if self.busy_seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rtfx": self.rtfx}


class ReportSums:
    """Sums the reports of a run up into its summary. `started`: when the run began."""

    def __init__(self, summary: Summary, started: float) -> None:
        self.summary, self.started = summary, started
        self.batches: dict[str, float | None] = {}  # of each worker, at its last unit
        self.padded = 0.0  # seconds of audio
        self.first = float("inf")  # seconds since `started`, when the first unit was begun

    def add(self, report: UnitReport) -> None:
        s, last = self.summary, time.perf_counter() - self.started
        self.first = min(self.first, max(0.0, last - report.unit_seconds))
        s.startup_seconds, s.busy_seconds = self.first, last - self.first
        s.units_done += 1
        s.audio_seconds += report.audio_seconds
        s.bytes += report.bytes
        s.frames += report.frames
        s.decode_seconds += report.decode_seconds
        s.clips_decoded += report.clips
        s.audio_requests += report.requests
        s.saved_decode_seconds += report.saved_seconds
        s.saved_clips += report.saved_clips
        s.saved_requests += report.saved_requests
        s.wait_seconds += report.wait_seconds
        s.forward_seconds += report.forward_seconds
        s.write_seconds += report.write_seconds
        s.halvings += report.halvings
        self.batches[report.worker] = report.batch_seconds
        s.batch_seconds = min((b for b in self.batches.values() if b is not None), default=None)
        self.padded += report.padded_seconds
        if self.padded:
            s.padding_share = max(0.0, 1 - s.audio_seconds / self.padded)


def add_outcomes(summary: Summary, plan: ExtractionPlan, rows: Outcomes) -> None:
    """Count the manifest's rows as they now stand in the store, whichever run put them there."""
    positions = rows.find(plan.digests)
    if gone := int((positions < 0).sum()):
        raise RunError(f"{summary.set_url}: {gone} rows are in no unit; did something else change the store? Run again")
    counts = rows.count(positions)
    summary.ok, summary.failed, summary.skipped = counts.ok, counts.failed, counts.skipped
    summary.reasons = counts.reasons
    summary.failures = [{"id": identity, "error": error} for identity, error in counts.failures]
