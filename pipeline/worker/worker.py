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
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.decoded_row import DecodedRow
from coat.pipeline.worker.decoding import decode_rows
from coat.pipeline.worker.prefetch import decode_ahead, read_ahead
from coat.pipeline.worker.report import UnitReport, failed_reasons
from coat.pipeline.worker.spool import Spool
from coat.pipeline.worker.stage_clock import StageClock, timed

UNITS_IN_HAND = 2
REPORTED_ERRORS = 20  # errors of a unit that its report names; the store has them all
Item = TypeVar("Item")


class Worker:
    """Holds a loaded expert; `run` extracts and commits units, from up to UNITS_IN_HAND threads."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        # One unit at a time, always in the same thread: each thread that runs a model has OpenMP threads of its own,
        # and where these are more than the CPUs, libgomp lets all of them wait more slowly. So weights load there too.
        self.model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.expert: Expert = self.run_in_model_thread(self.load)
        parallel = self.expert.parallel_rows and config.threads > 1
        self.row_threads = ThreadPoolExecutor(config.threads, thread_name_prefix="rows") if parallel else None
        self.stopped = threading.Event()  # set: units in hand are dropped at their next batch
        self.decoders = ThreadPoolExecutor(max(2, min(8, (os.cpu_count() or 2))), thread_name_prefix="decode")
        self.halvings = 0

    def load(self) -> Expert:
        config = self.config
        torch.set_num_threads(config.threads)
        expert = create(config.expert, config.options)
        if expert.spec.fingerprint != config.spec.fingerprint:
            raise RunError(
                f"{config.expert}: this worker would give fingerprint {expert.spec.fingerprint}, the run is for "
                f"{config.spec.fingerprint}; the same weights and coat must be on every node"
            )
        if config.device == "cpu":
            keep_freed_memory()
        expert.load(config.device)
        return expert

    def run_in_model_thread(self, function: Callable[..., Item], *arguments: Any) -> Item:
        return self.model_thread.submit(function, *arguments).result()

    def ready(self) -> bool:
        """Answers once the expert is loaded."""
        return True

    def run(self, unit: Unit) -> UnitReport:
        """Extract and commit. RunError where the store cannot be written or the expert fails on every row."""
        clock = StageClock()
        halvings = self.halvings
        decoded = timed(self.decoded_batches(unit.rows), clock)
        with UnitWriter(self.config.set_url, unit.name, self.config.spec.dim, self.config.spec.dtype) as writer:
            rows = self.run_in_model_thread(self.run_unit, decoded, writer, clock)
            self.check_some_worked(rows)
            facts = {
                "seconds": {n: round(getattr(clock, n), 3) for n in ("decode", "wait", "forward")},
                "padded_audio_seconds": round(clock.padded_audio, 3),
                "heard_audio_seconds": round(clock.unpadded_audio, 3),
                "device": self.config.device,
                "attempt": unit.attempt,
            }
            done = writer.commit(rows, facts)
            clock.write = writer.seconds
        return UnitReport(
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
            errors=tuple(f"{r.id}: {r.error}" for r in rows if r.status == "failed")[:REPORTED_ERRORS],
            worker=f"{socket.gethostname()}:{os.getpid()}",
            reasons=failed_reasons(rows),
        )

    def run_unit(self, batches: Iterable[list[DecodedRow]], writer: UnitWriter, clock: StageClock) -> list[Row]:
        rows: list[Row] = []
        for batch in batches:
            rows += [write_row(writer, row) for row in self.run_batch(batch, clock)]
            clock.decode += sum(row.decode_seconds for row in batch)
        return rows

    def decoded_batches(self, rows: Sequence[PlannedRow]) -> Iterator[list[DecodedRow]]:
        """Batches in order, decoded ahead of the expert."""
        return decode_ahead(self.decoders, partial(decode_rows, self.expert), list(cut_batches(rows, self.expert)))

    def run_batch(self, batch: list[DecodedRow], clock: StageClock) -> list[DecodedRow]:
        """Give every row of a batch its frames, or its error. RunError where the run was stopped."""
        self.check_stopped()
        started = time.perf_counter()
        self.run_expert([row for row in batch if row.waveform_T is not None], clock)
        clock.forward += time.perf_counter() - started
        for row in batch:
            if row.long:
                self.run_long_row(row, clock)
        return batch

    def check_stopped(self) -> None:
        if self.stopped.is_set():
            raise RunError("stopped")

    def run_long_row(self, row: DecodedRow, clock: StageClock) -> None:
        """A row window by window, of which a batch and the next one are decoded at a time; frames go to its spool.

        Where memory runs out it starts again with half the batch.
        """
        started, waited = time.perf_counter(), clock.wait
        while not row.spool and row.status == "ok":
            seconds = self.expert.budget_seconds / 2**self.halvings
            try:
                self.stream_long_row(row, seconds, clock)
            except AudioError as e:
                row.fail(e.reason, str(e))
            except RunError:
                raise
            except (torch.OutOfMemoryError, MemoryError) as e:
                if seconds <= self.expert.window_s:
                    row.fail("oom", f"a window of {self.expert.window_s:g} s does not fit into memory ({e})")
                self.halvings += 1
                torch.cuda.empty_cache()
            except Exception as e:  # noqa: BLE001  whatever a model raises is the outcome of the row that made it
                row.fail("expert_error", f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")
        clock.forward += time.perf_counter() - started - (clock.wait - waited)

    def stream_long_row(self, row: DecodedRow, seconds: float, clock: StageClock) -> None:
        u, spec = row.planned.utterance, self.config.spec
        spool = Spool(builds_folder(self.config.set_url), spec.dim, spec.dtype)
        span = AudioFile(u.audio).span(u.offset, u.duration)
        plan = self.expert.windows(resampled_length(span.samples, span.rate, spec.sample_rate))
        group = max(1, int(seconds / self.expert.window_s))
        with read_ahead(self.decoders, split_into_windows(span.pieces(spec.sample_rate), plan), group) as cuts:
            windows = self.count_audio(timed(cuts, clock), clock)
            for frames_ND in kept_frames(self.expert.stream(windows, seconds), plan):
                part = DecodedRow(row.planned)
                self.accept_frames(part, frames_ND)
                if part.frames_ND is None:
                    row.status, row.error = part.status, part.error
                    return
                spool.append(part.frames_ND)
        row.source, row.spool = span.digest, spool

    def count_audio(self, windows: Iterable[Waveform], clock: StageClock) -> Iterator[Waveform]:
        for samples_T in windows:
            self.check_stopped()
            clock.padded_audio += self.expert.padded_samples(len(samples_T)) / self.config.spec.sample_rate
            clock.unpadded_audio += len(samples_T) / self.config.spec.sample_rate
            yield samples_T

    def run_expert(self, rows: list[DecodedRow], clock: StageClock) -> None:
        """Run the expert; halve the batch where memory runs out, and take rows one by one where it raises."""
        budget = max(1, len(rows) >> self.halvings)
        for start in range(0, len(rows), budget):
            part = rows[start : start + budget]
            waveforms = [row.waveform_T for row in part if row.waveform_T is not None]
            try:
                frames = self.extract_waveforms(waveforms)
            except (torch.OutOfMemoryError, MemoryError) as e:
                if len(part) == 1:
                    part[0].fail("oom", f"{part[0].seconds:.1f} s do not fit into memory ({self.config.device}: {e})")
                    continue
                self.halvings += 1
                torch.cuda.empty_cache()
                self.run_expert(part, clock)
            except Exception as e:  # noqa: BLE001  whatever a model raises is the outcome of the row that made it
                if len(part) == 1:
                    part[0].fail("expert_error", f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")
                    continue
                for row in part:
                    self.run_expert([row], clock)
            else:
                lengths = [self.expert.padded_samples(len(w)) for w in waveforms]
                padded = max(lengths) * len(lengths) if self.expert.pads else sum(lengths)
                clock.padded_audio += padded / self.config.spec.sample_rate
                clock.unpadded_audio += sum(len(w) for w in waveforms) / self.config.spec.sample_rate
                for row, frames_ND in zip(part, frames, strict=True):
                    self.accept_frames(row, frames_ND)

    def extract_waveforms(self, waveforms: list[Waveform]) -> list[Frames]:
        """Frames of each, in order, whichever thread is done first."""
        if self.row_threads is None:
            return self.expert.extract(waveforms)
        return [frames for (frames,) in self.row_threads.map(lambda x: self.expert.extract([x]), waveforms)]

    def accept_frames(self, row: DecodedRow, frames_ND: Frames) -> None:
        """Cast to the stored dtype; a row whose frames are not finite or not of the spec's shape fails."""
        spec = self.config.spec
        row.waveform_T = None
        if frames_ND.ndim != 2 or frames_ND.shape[1] != spec.dim or not len(frames_ND):
            row.fail("bad_shape", f"frames {list(frames_ND.shape)}; the spec says [frames, {spec.dim}]")
            return
        if not np.isfinite(frames_ND).all():
            row.fail("not_finite", "the expert gave NaN or infinity")
            return
        with np.errstate(over="ignore"):
            stored = frames_ND.astype(spec.dtype)
        if not np.isfinite(stored).all():
            largest = np.abs(frames_ND).max()
            row.fail("overflow", f"values up to {largest:.3g} do not fit {spec.dtype}; use --dtype float32")
            return
        row.frames_ND = stored

    def check_some_worked(self, rows: Sequence[Row]) -> None:
        """An expert that fails on every row of a unit is broken, not unlucky: stop before recording that."""
        raised = [r for r in rows if r.reason in ("expert_error", "bad_shape")]
        if len(raised) > 1 and not any(r.status == "ok" for r in rows):
            raise RunError(f"{self.config.expert}: fails on each of {len(raised)} rows; the first: {raised[0].error}")


def write_row(writer: UnitWriter, row: DecodedRow) -> Row:
    """Give a row's frames to the unit; the Row says what became of it."""
    first, planned = writer.frames.frames, row.planned
    for block_ND in row.blocks():
        writer.append(block_ND)
    row.frames_ND = row.spool = None
    return Row(
        unit=writer.unit,
        id=planned.utterance.id,
        digest=planned.digest,
        source=row.source,
        seconds=row.seconds,
        first=first,
        frames=writer.frames.frames - first,
        status=row.status,
        error=row.error,
    )
