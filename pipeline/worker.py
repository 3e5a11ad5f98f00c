"""One worker: decode -> batch -> expert -> commit, for one unit at a time.

Two units may be in hand at once: while one holds the expert, the next one's first batches decode and
the last one's frames are written. N frames, D dim, T samples.
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from coat.extractors.expert import Expert, Frames, Options, Waveform
from coat.extractors.registry import create
from coat.extractors.windows import cut, join
from coat.manifests.audio import AudioError, AudioFile, resampled_length
from coat.manifests.errors import RunError
from coat.manifests.spec import TargetSpec
from coat.pipeline.commit import UnitWriter, builds_folder
from coat.pipeline.plan import PlannedRow, Unit
from coat.pipeline.prefetch import ahead, prefetched
from coat.pipeline.rows import Row, Status
from coat.pipeline.spool import Spool

BATCH_CLIPS = 256  # of very short clips
PADDING_LIMIT = 0.04  # of a batch: one that would hold more padding is cut; felt by small corpora alone
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
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    frames: int = 0
    bytes: int = 0
    audio_seconds: float = 0.0
    unit_seconds: float = 0.0  # from taking the unit in hand to its commit
    decode_seconds: float = 0.0  # of all decoding threads together
    wait_seconds: float = 0.0  # of the expert, for audio
    forward_seconds: float = 0.0
    write_seconds: float = 0.0
    padded_seconds: float = 0.0
    halvings: int = 0  # of the batch budget, for want of memory
    errors: tuple[str, ...] = ()  # "id: reason: message", the first few
    worker: str = ""  # host and process
    reasons: Mapping[str, int] = field(default_factory=dict)  # of failed rows, all of them

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage; stages overlap, so that they may sum to more than the unit took."""
        seconds = {"decode": self.decode_seconds, "wait": self.wait_seconds}
        return seconds | {"forward": self.forward_seconds, "write": self.write_seconds}

    @classmethod
    def of_failed(cls, unit: str, rows: Sequence[Row]) -> "Report":
        """Of rows that no expert could be given."""
        errors = tuple(f"{r.id}: {r.error}" for r in rows)
        return cls(unit, failed=len(rows), errors=errors, reasons=failed_reasons(rows))


@dataclass(eq=False)
class Heard:
    """A row on its way through the worker: a waveform, or why there is none; then frames, or why not."""

    planned: PlannedRow
    source: str | None = None
    seconds: float = 0.0
    decode_seconds: float = 0.0
    waveform_T: Waveform | None = None
    frames_ND: NDArray[np.generic] | None = None
    spool: Spool | None = None  # the frames of a row that is longer than a window
    long: bool = False  # to be heard window by window, and not decoded yet
    status: Status = "ok"
    error: str | None = None

    def fail(self, reason: str, message: str, status: Status = "failed") -> None:
        self.status, self.error = status, f"{reason}: {message}"
        self.waveform_T = self.frames_ND = self.spool = None

    def blocks(self) -> Iterator[NDArray[np.generic]]:
        """The row's frames as they are stored, once: `[N, D]` as a whole, or block by block where it is long."""
        if self.spool is not None:
            yield from self.spool.blocks()
        elif self.frames_ND is not None:
            yield self.frames_ND


@dataclass
class Clock:
    """Seconds by stage, of one unit. Waiting for audio is what prefetching failed to hide."""

    decode: float = 0.0
    wait: float = 0.0
    forward: float = 0.0
    write: float = 0.0
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
        # One unit at a time, always in the same thread: each thread that runs a model has OpenMP threads of its own.
        self.model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.stopped = threading.Event()  # set: units in hand are dropped at their next batch
        self.decoders = ThreadPoolExecutor(max(2, min(8, (os.cpu_count() or 2))), thread_name_prefix="decode")
        self.halvings = 0

    def ready(self) -> bool:
        """Answers once the expert is loaded."""
        return True

    def run(self, unit: Unit) -> Report:
        """Extract and commit. RunError where the store cannot be written or the expert fails on every row."""
        clock = Clock()
        halvings = self.halvings
        batches = list(self.batches(unit.rows))
        decoded = timed(prefetched(self.decoders, self.decode_rows, batches), clock)
        with UnitWriter(self.job.set_url, unit.name, self.job.spec.dim, self.job.spec.dtype) as writer:
            rows = self.model_thread.submit(self.hear_unit, decoded, writer, clock).result()
            self.check_some_worked(rows)
            facts = {
                "seconds": {n: round(getattr(clock, n), 3) for n in ("decode", "wait", "forward")},
                "padded_audio_seconds": round(clock.padded_audio, 3),
                "heard_audio_seconds": round(clock.heard_audio, 3),
                "device": self.job.device,
            }
            done = writer.commit(rows, facts)
            clock.write = writer.seconds
        return Report(
            unit=unit.name,
            ok=done["ok"],
            failed=done["failed"],
            skipped=done["skipped"],
            frames=done["frames"],
            bytes=done["bytes"],
            audio_seconds=done["audio_seconds"],
            unit_seconds=time.perf_counter() - clock.started,
            decode_seconds=clock.decode,
            wait_seconds=clock.wait,
            forward_seconds=clock.forward,
            write_seconds=clock.write,
            padded_seconds=clock.padded_audio,
            halvings=self.halvings - halvings,
            errors=tuple(f"{r.id}: {r.error}" for r in rows if r.status == "failed")[:REPORTED],
            worker=f"{socket.gethostname()}:{os.getpid()}",
            reasons=failed_reasons(rows),
        )

    def hear_unit(self, batches: Iterable[list[Heard]], writer: UnitWriter, clock: Clock) -> list[Row]:
        rows: list[Row] = []
        for batch in batches:
            rows += [write_row(writer, h) for h in self.hear(batch, clock)]
            clock.decode += sum(h.decode_seconds for h in batch)
        return rows

    def batches(self, rows: Sequence[PlannedRow]) -> Iterator[list[PlannedRow]]:
        """Rows cut by their padded audio, from planned lengths alone: the same batches on every run.

        A row that is longer than a window is a batch of its own.
        """
        rate = self.job.spec.sample_rate
        batch: list[PlannedRow] = []
        longest = total = 0  # samples
        for row in rows:
            planned = round(row.seconds * rate)
            long = planned > self.expert.window_s * rate
            samples = self.expert.padded_samples(planned)
            padded = max(longest, samples) * (len(batch) + 1)
            wasteful = self.expert.pads and padded - total - samples > PADDING_LIMIT * padded
            full = padded > self.expert.batch_seconds * rate or len(batch) == BATCH_CLIPS
            if batch and (long or full or wasteful):
                yield batch
                batch, longest, total = [], 0, 0
            batch.append(row)
            longest, total = max(longest, samples), total + samples
            if long:
                yield batch
                batch, longest, total = [], 0, 0
        if batch:
            yield batch

    def decode_rows(self, rows: Sequence[PlannedRow]) -> dict[str, Heard]:
        """By digest, the rows of a unit that are spans of one file, which is downloaded and checked once."""
        heard = {row.digest: Heard(row) for row in rows}
        for h in heard.values():
            if h.planned.fault:
                reason, _, message = h.planned.fault.partition(": ")
                h.fail(reason, message)
        wanted = [h for h in heard.values() if h.status == "ok"]
        wanted.sort(key=lambda h: h.planned.utterance.offset)
        try:
            file = AudioFile(rows[0].utterance.audio) if wanted else None  # rows that repeat an id are not heard
        except AudioError as e:
            for h in wanted:
                h.fail(e.reason, str(e))
        else:
            for h in wanted:
                assert file is not None
                started = time.perf_counter()
                self.decode_row(h, file)
                h.decode_seconds = time.perf_counter() - started
        return heard

    def decode_row(self, heard: Heard, file: AudioFile) -> None:
        u, spec = heard.planned.utterance, self.job.spec
        try:
            span = file.span(u.offset, u.duration)
            samples = resampled_length(span.samples, span.rate, spec.sample_rate)
            heard.seconds = span.seconds
            if len(self.expert.windows(samples)) > 1:
                heard.long = True
                return
            clip = span.decode()
        except AudioError as e:
            heard.fail(e.reason, str(e))
            return
        heard.source = clip.digest
        if samples < spec.min_samples:
            least = spec.min_samples / spec.sample_rate
            heard.fail("too_short", f"{clip.seconds:.4f} s; {spec.expert} needs {least:.4f} s", status="skipped")
            return
        heard.waveform_T = clip.at(spec.sample_rate)

    def hear(self, batch: list[Heard], clock: Clock) -> list[Heard]:
        """Give every row of a batch its frames, or its error. RunError where the run was stopped."""
        self.check_stopped()
        started = time.perf_counter()
        self.extract([h for h in batch if h.waveform_T is not None], clock)
        clock.forward += time.perf_counter() - started
        for h in batch:
            if h.long:
                self.hear_long(h, clock)
        return batch

    def check_stopped(self) -> None:
        if self.stopped.is_set():
            raise RunError("stopped")

    def hear_long(self, heard: Heard, clock: Clock) -> None:
        """A row window by window, of which a batch and the next one are decoded at a time; frames go to its spool.

        Where memory runs out it starts again with half the batch.
        """
        started, waited = time.perf_counter(), clock.wait
        while not heard.spool and heard.status == "ok":
            seconds = self.expert.batch_seconds / 2**self.halvings
            try:
                self.stream(heard, seconds, clock)
            except AudioError as e:
                heard.fail(e.reason, str(e))
            except RunError:
                raise
            except (torch.OutOfMemoryError, MemoryError) as e:
                if seconds <= self.expert.window_s:
                    heard.fail("oom", f"a window of {self.expert.window_s:g} s does not fit into memory ({e})")
                self.halvings += 1
                torch.cuda.empty_cache()
            except Exception as e:  # noqa: BLE001  whatever a model raises is the outcome of the row that made it
                heard.fail("expert_error", f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")
        clock.forward += time.perf_counter() - started - (clock.wait - waited)

    def stream(self, heard: Heard, seconds: float, clock: Clock) -> None:
        u, spec = heard.planned.utterance, self.job.spec
        spool = Spool(builds_folder(self.job.set_url), spec.dim, spec.dtype)
        span = AudioFile(u.audio).span(u.offset, u.duration)
        plan = self.expert.windows(resampled_length(span.samples, span.rate, spec.sample_rate))
        group = max(1, int(seconds / self.expert.window_s))
        with ahead(self.decoders, cut(span.pieces(spec.sample_rate), plan), group) as cuts:
            windows = self.counted(timed(cuts, clock), clock)
            for frames_ND in join(self.expert.stream(windows, seconds), plan):
                part = Heard(heard.planned)
                self.accept(part, frames_ND)
                if part.frames_ND is None:
                    heard.status, heard.error = part.status, part.error
                    return
                spool.append(part.frames_ND)
        heard.source, heard.spool = span.digest, spool

    def counted(self, windows: Iterable[Waveform], clock: Clock) -> Iterator[Waveform]:
        for samples_T in windows:
            self.check_stopped()
            clock.padded_audio += self.expert.padded_samples(len(samples_T)) / self.job.spec.sample_rate
            clock.heard_audio += len(samples_T) / self.job.spec.sample_rate
            yield samples_T

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

    def check_some_worked(self, rows: Sequence[Row]) -> None:
        """An expert that fails on every row of a unit is broken, not unlucky: stop before recording that."""
        raised = [r for r in rows if r.reason in ("expert_error", "bad_shape")]
        if len(raised) > 1 and not any(r.status == "ok" for r in rows):
            raise RunError(f"{self.job.expert}: fails on each of {len(raised)} rows; the first: {raised[0].error}")


def write_row(writer: UnitWriter, h: Heard) -> Row:
    """Give a row's frames to the unit, and what became of it to its table."""
    first = writer.frames.frames
    for block_ND in h.blocks():
        writer.append(block_ND)
    h.frames_ND = h.spool = None
    n, asked = writer.frames.frames - first, h.planned
    return Row(writer.unit, asked.utterance.id, asked.digest, h.source, h.seconds, first, n, h.status, h.error)


def failed_reasons(rows: Iterable[Row]) -> dict[str, int]:
    return dict(Counter(r.reason or "" for r in rows if r.status == "failed"))


Item = TypeVar("Item")


def timed(items: Iterable[Item], clock: Clock) -> Iterator[Item]:
    """The same items; what it took to get each counts as waiting."""
    iterator = iter(items)
    while True:
        started = time.perf_counter()
        item = next(iterator, None)
        clock.wait += time.perf_counter() - started
        if item is None:
            return
        yield item
