"""One worker: decode -> batch -> expert -> commit, for one unit at a time.

Two units may be in hand at once: while one holds the expert, the next one's first batches decode and
the last one's frames are written. N frames, D dim, T samples.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from coat.extractors.devices import keep_freed_memory
from coat.extractors.expert import Expert, Frames, Waveform
from coat.extractors.registry import create
from coat.extractors.windows import kept_frames, split_into_windows
from coat.manifests.audio.clip import AudioError, resampled_length
from coat.manifests.audio.file import AudioFile
from coat.manifests.errors import RunError
from coat.pipeline.plan.units import PlannedRow, Unit
from coat.pipeline.store.builds import builds_folder
from coat.pipeline.store.rows import Row
from coat.pipeline.store.unit_writer import UnitWriter
from coat.pipeline.worker.batches import cut_batches
from coat.pipeline.worker.config import Job
from coat.pipeline.worker.decoded_row import Heard
from coat.pipeline.worker.decoding import decode_rows
from coat.pipeline.worker.prefetch import ahead, prefetched
from coat.pipeline.worker.report import Report, failed_reasons
from coat.pipeline.worker.spool import Spool
from coat.pipeline.worker.stage_clock import Clock, timed

UNITS_IN_HAND = 2
REPORTED = 20  # errors of a unit that its report names; the store has them all
Item = TypeVar("Item")


class Worker:
    """Holds a loaded expert; `run` extracts and commits units, from up to UNITS_IN_HAND threads."""

    def __init__(self, job: Job) -> None:
        self.job = job
        # One unit at a time, always in the same thread: each thread that runs a model has OpenMP threads of its own,
        # and where these are more than the CPUs, libgomp lets all of them wait more slowly. So weights load there too.
        self.model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.expert: Expert = self.in_model_thread(self.load)
        parallel = self.expert.parallel_rows and job.threads > 1
        self.row_threads = ThreadPoolExecutor(job.threads, thread_name_prefix="rows") if parallel else None
        self.stopped = threading.Event()  # set: units in hand are dropped at their next batch
        self.decoders = ThreadPoolExecutor(max(2, min(8, (os.cpu_count() or 2))), thread_name_prefix="decode")
        self.halvings = 0

    def load(self) -> Expert:
        job = self.job
        torch.set_num_threads(job.threads)
        expert = create(job.expert, job.options)
        if expert.spec.fingerprint != job.spec.fingerprint:
            raise RunError(
                f"{job.expert}: this worker would give fingerprint {expert.spec.fingerprint}, the run is for "
                f"{job.spec.fingerprint}; the same weights and coat must be on every node"
            )
        if job.device == "cpu":
            keep_freed_memory()
        expert.load(job.device)
        return expert

    def in_model_thread(self, function: Callable[..., Item], *arguments: Any) -> Item:
        return self.model_thread.submit(function, *arguments).result()

    def ready(self) -> bool:
        """Answers once the expert is loaded."""
        return True

    def run(self, unit: Unit) -> Report:
        """Extract and commit. RunError where the store cannot be written or the expert fails on every row."""
        clock = Clock()
        halvings = self.halvings
        decoded = timed(self.decoded(unit.rows), clock)
        with UnitWriter(self.job.set_url, unit.name, self.job.spec.dim, self.job.spec.dtype) as writer:
            rows = self.in_model_thread(self.hear_unit, decoded, writer, clock)
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

    def decoded(self, rows: Sequence[PlannedRow]) -> Iterator[list[Heard]]:
        """Batches in order, decoded ahead of the expert."""
        return prefetched(self.decoders, partial(decode_rows, self.expert), list(cut_batches(rows, self.expert)))

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
            seconds = self.expert.budget_seconds / 2**self.halvings
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
        with ahead(self.decoders, split_into_windows(span.pieces(spec.sample_rate), plan), group) as cuts:
            windows = self.counted(timed(cuts, clock), clock)
            for frames_ND in kept_frames(self.expert.stream(windows, seconds), plan):
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
                frames = self.frames_of(waveforms)
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

    def frames_of(self, waveforms: list[Waveform]) -> list[Frames]:
        """In order, whichever thread is done first."""
        if self.row_threads is None:
            return self.expert.extract(waveforms)
        return [frames for (frames,) in self.row_threads.map(lambda x: self.expert.extract([x]), waveforms)]

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
