"""One worker: decode -> batch -> expert -> commit, for one unit at a time.

Two units may be in hand at once: while one holds the expert, the next one's first batches decode and
the last one's frames are written. N frames, D dim, T samples.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from coat.extractors.expert import Expert, Frames, Options, Waveform
from coat.extractors.registry import create
from coat.manifests.audio import AudioError, decode
from coat.manifests.errors import RunError
from coat.manifests.spec import TargetSpec
from coat.pipeline.commit import commit_unit
from coat.pipeline.plan import PlannedRow, Unit
from coat.pipeline.store import Row, Status

BATCH_CLIPS = 256  # of very short clips
PADDING_LIMIT = 0.04  # of a batch: one that would hold more padding is cut; felt by small corpora alone
PREFETCH_BATCHES = 2  # decoded ahead of the expert
UNITS_IN_HAND = 2
REPORTED = 20  # errors of a unit that its report names; the store has them all


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know, small enough to send anywhere."""

    expert: str
    options: Options
    set_url: str
    spec: TargetSpec
    device: str
    threads: int  # CPU threads of this worker


@dataclass(frozen=True)
class Report:
    """What became of a unit; features stay in the store."""

    unit: str
    ok: int
    failed: int
    skipped: int
    frames: int
    bytes: int
    audio_seconds: float
    unit_seconds: float  # from taking the unit in hand to its commit
    forward_seconds: float
    padded_seconds: float
    halvings: int  # of the batch budget, for want of memory
    errors: tuple[str, ...]  # "id: reason: message", the first few

    @classmethod
    def of_failed(cls, unit: str, rows: Sequence[Row]) -> "Report":
        """Of rows that no expert could be given."""
        errors = tuple(f"{r.id}: {r.error}" for r in rows)
        return cls(unit, 0, len(rows), 0, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, errors)


@dataclass(eq=False)
class Heard:
    """A row on its way through the worker: a waveform, or why there is none; then frames, or why not."""

    planned: PlannedRow
    source: str | None = None
    seconds: float = 0.0
    waveform_T: Waveform | None = None
    frames_ND: NDArray[np.generic] | None = None
    status: Status = "ok"
    error: str | None = None

    def fail(self, reason: str, message: str, status: Status = "failed") -> None:
        self.status, self.error = status, f"{reason}: {message}"
        self.waveform_T = self.frames_ND = None


@dataclass
class Clock:
    """Seconds by stage, of one unit. Waiting for audio is what prefetching failed to hide."""

    wait: float = 0.0
    forward: float = 0.0
    padded_audio: float = 0.0
    heard_audio: float = 0.0
    started: float = field(default_factory=time.perf_counter)


class Worker:
    """Holds a loaded expert; `run` extracts and commits units, from up to UNITS_IN_HAND threads."""

    def __init__(self, job: Job) -> None:
        self.job = job
        torch.set_num_threads(job.threads)
        self.expert: Expert = create(job.expert, job.options)
        if self.expert.spec.fingerprint != job.spec.fingerprint:
            raise RunError(
                f"{job.expert}: this worker would give fingerprint {self.expert.spec.fingerprint}, the run is for "
                f"{job.spec.fingerprint}; the same weights and coat must be on every node"
            )
        self.expert.load(job.device)
        self.forward_lock = threading.Lock()
        self.stopped = threading.Event()  # set: units in hand are dropped at their next batch
        self.decoders = ThreadPoolExecutor(max(2, min(8, (os.cpu_count() or 2))), thread_name_prefix="decode")
        self.halvings = 0

    def ready(self) -> bool:
        """Answers once the expert is loaded."""
        return True

    def run(self, unit: Unit) -> Report:
        """Extract and commit. RunError where the store cannot be written or the expert fails on every row."""
        clock = Clock()
        batches = list(self.batches(unit.rows))
        decoded = prefetched(self.decoders, self.decode_row, batches)
        with self.forward_lock:
            heard = [row for batch in timed(decoded, clock) for row in self.hear(batch, clock)]
        self.check_some_worked(heard)
        rows: list[Row] = []
        first = 0
        for h in heard:
            n = 0 if h.frames_ND is None else len(h.frames_ND)
            identity = h.planned.utterance.id
            rows.append(Row(unit.name, identity, h.planned.digest, h.source, h.seconds, first, n, h.status, h.error))
            first += n
        parts = [h.frames_ND for h in heard if h.frames_ND is not None]
        frames_ND = np.concatenate(parts) if parts else np.empty((0, self.job.spec.dim), self.job.spec.dtype)
        facts = {
            "seconds": {"wait": round(clock.wait, 3), "forward": round(clock.forward, 3)},
            "padded_audio_seconds": round(clock.padded_audio, 3),
            "heard_audio_seconds": round(clock.heard_audio, 3),
            "device": self.job.device,
        }
        done = commit_unit(self.job.set_url, unit.name, frames_ND, rows, facts)
        return Report(
            unit=unit.name,
            ok=done["ok"],
            failed=done["failed"],
            skipped=done["skipped"],
            frames=done["frames"],
            bytes=done["bytes"],
            audio_seconds=done["audio_seconds"],
            unit_seconds=time.perf_counter() - clock.started,
            forward_seconds=clock.forward,
            padded_seconds=clock.padded_audio,
            halvings=self.halvings,
            errors=tuple(f"{r.id}: {r.error}" for r in rows if r.status == "failed")[:REPORTED],
        )

    def batches(self, rows: Sequence[PlannedRow]) -> Iterator[list[PlannedRow]]:
        """Rows cut by their padded audio, from planned lengths alone: the same batches on every run."""
        rate = self.job.spec.sample_rate
        batch: list[PlannedRow] = []
        longest = total = 0  # samples
        for row in rows:
            samples = self.expert.padded_samples(round(row.seconds * rate))
            padded = max(longest, samples) * (len(batch) + 1)
            wasteful = self.expert.pads and padded - total - samples > PADDING_LIMIT * padded
            if batch and (padded > self.expert.batch_seconds * rate or len(batch) == BATCH_CLIPS or wasteful):
                yield batch
                batch, longest, total = [], 0, 0
            batch.append(row)
            longest, total = max(longest, samples), total + samples
        if batch:
            yield batch

    def decode_row(self, planned: PlannedRow) -> Heard:
        heard = Heard(planned)
        u, spec = planned.utterance, self.job.spec
        if planned.fault:
            reason, _, message = planned.fault.partition(": ")
            heard.fail(reason, message)
            return heard
        try:
            clip = decode(u.audio, u.offset, u.duration)
        except AudioError as e:
            heard.fail(e.reason, str(e))
            return heard
        heard.source, heard.seconds = clip.digest, clip.seconds
        heard.waveform_T = clip.at(spec.sample_rate)
        if len(heard.waveform_T) < spec.min_samples:
            least = spec.min_samples / spec.sample_rate
            heard.fail("too_short", f"{clip.seconds:.4f} s; {spec.expert} needs {least:.4f} s", status="skipped")
        return heard

    def hear(self, batch: list[Heard], clock: Clock) -> list[Heard]:
        """Give every row of a batch its frames, or its error. RunError where the run was stopped."""
        if self.stopped.is_set():
            raise RunError("stopped")
        started = time.perf_counter()
        self.extract([h for h in batch if h.waveform_T is not None], clock)
        clock.forward += time.perf_counter() - started
        return batch

    def extract(self, rows: list[Heard], clock: Clock) -> None:
        """Run the expert; halve the batch where memory runs out, and take rows one by one where it raises."""
        budget = max(1, len(rows) >> self.halvings)
        for start in range(0, len(rows), budget):
            part = rows[start : start + budget]
            waveforms = [h.waveform_T for h in part if h.waveform_T is not None]
            try:
                frames = self.expert.extract(waveforms)
            except (torch.OutOfMemoryError, MemoryError) as e:
                if len(part) == 1:
                    part[0].fail("oom", f"{part[0].seconds:.1f} s do not fit into memory ({self.job.device}: {e})")
                    continue
                self.halvings += 1
                torch.cuda.empty_cache()
                self.extract(part, clock)
            except Exception as e:  # noqa: BLE001  whatever a model raises is the outcome of the row that made it
                if len(part) == 1:
                    part[0].fail("expert_error", f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")
                    continue
                for h in part:
                    self.extract([h], clock)
            else:
                lengths = [self.expert.padded_samples(len(w)) for w in waveforms]
                padded = max(lengths) * len(lengths) if self.expert.pads else sum(lengths)
                clock.padded_audio += padded / self.job.spec.sample_rate
                clock.heard_audio += sum(len(w) for w in waveforms) / self.job.spec.sample_rate
                for h, frames_ND in zip(part, frames, strict=True):
                    self.accept(h, frames_ND)

    def accept(self, heard: Heard, frames_ND: Frames) -> None:
        """Cast to the stored dtype; a row whose frames are not finite or not of the spec's shape fails."""
        spec = self.job.spec
        heard.waveform_T = None
        if frames_ND.ndim != 2 or frames_ND.shape[1] != spec.dim or not len(frames_ND):
            heard.fail("bad_shape", f"frames {list(frames_ND.shape)}; the spec says [frames, {spec.dim}]")
            return
        if not np.isfinite(frames_ND).all():
            heard.fail("not_finite", "the expert gave NaN or infinity")
            return
        with np.errstate(over="ignore"):
            stored = frames_ND.astype(spec.dtype)
        if not np.isfinite(stored).all():
            largest = np.abs(frames_ND).max()
            heard.fail("overflow", f"values up to {largest:.3g} do not fit {spec.dtype}; use --dtype float32")
            return
        heard.frames_ND = stored

    def check_some_worked(self, heard: Sequence[Heard]) -> None:
        """An expert that fails on every row of a unit is broken, not unlucky: stop before recording that."""
        raised = [h for h in heard if h.error and h.error.startswith(("expert_error", "bad_shape"))]
        if len(raised) > 1 and not any(h.status == "ok" for h in heard):
            raise RunError(f"{self.job.expert}: fails on each of {len(raised)} rows; the first: {raised[0].error}")


def prefetched(
    pool: ThreadPoolExecutor, decode_row: Callable[[PlannedRow], Heard], batches: list[list[PlannedRow]]
) -> Iterator[list[Heard]]:
    """Decoded batches in order, PREFETCH_BATCHES ahead of the one that is taken."""
    queue: list[list[Future[Heard]]] = []
    for i in range(min(PREFETCH_BATCHES, len(batches))):
        queue.append([pool.submit(decode_row, row) for row in batches[i]])

    def take() -> Iterator[list[Heard]]:
        for i in range(len(batches)):
            ready = [f.result() for f in queue.pop(0)]
            if i + PREFETCH_BATCHES < len(batches):
                queue.append([pool.submit(decode_row, row) for row in batches[i + PREFETCH_BATCHES]])
            yield ready

    return take()


def timed(batches: Iterable[list[Heard]], clock: Clock) -> Iterator[list[Heard]]:
    """The same batches; what it took to get each counts as waiting."""
    iterator = iter(batches)
    while True:
        started = time.perf_counter()
        batch = next(iterator, None)
        clock.wait += time.perf_counter() - started
        if batch is None:
            return
        yield batch
