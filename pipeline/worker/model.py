"""The expert of a worker and the thread that runs it: batches and long rows in, frames or the reason why not out.

A row fails alone, where the model raises because of it. Where memory runs out it is tried again with less; where the
device is lost no row is to blame: DeviceFault. N frames, D dim, T samples.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from coat.extractors.devices import keep_freed_memory
from coat.extractors.expert import Expert, Frames, Waveform
from coat.extractors.registry import create
from coat.extractors.windows import kept_frames, split_into_windows
from coat.manifests.audio.clip import AudioError, resampled_length
from coat.manifests.audio.file import AudioFile
from coat.manifests.errors import DeviceFault, RunError
from coat.pipeline.decoding.decoded_row import DecodedRow, Source
from coat.pipeline.decoding.evidence import Evidence
from coat.pipeline.decoding.prefetch import read_ahead
from coat.pipeline.decoding.shared_audio import open_file
from coat.pipeline.decoding.spool import Spool
from coat.pipeline.store.builds import builds_folder
from coat.pipeline.worker.budget import BatchBudget, pass_seconds
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.device_errors import free_memory, is_out_of_memory, is_sticky, summarized
from coat.pipeline.worker.frame_checks import accept_frames
from coat.pipeline.worker.hands import Hands
from coat.pipeline.worker.stage_clock import StageClock, timed

Item = TypeVar("Item")


class Model:
    """A loaded expert, run by one thread; RunError where its weights are not those of the run."""

    def __init__(self, config: WorkerConfig, hands: Hands) -> None:
        self.config, self.hands = config, hands
        self.expert: Expert = self.in_thread(self.load)
        parallel = self.expert.parallel_rows and config.threads > 1
        self.row_threads = ThreadPoolExecutor(config.threads, thread_name_prefix="rows") if parallel else None
        self.budget = BatchBudget()

    def load(self) -> Expert:
        torch.set_num_threads(self.config.threads)
        return load_expert(self.config)

    def in_thread(self, function: Callable[..., Item], *arguments: Any) -> Item:
        return self.hands.models.call(lambda: function(*arguments))

    def run_batch(self, batch: list[DecodedRow], clock: StageClock, evidence: Evidence) -> list[DecodedRow]:
        """Give every row of a batch what the expert gave, or its error. RunError where the run was stopped."""
        self.check_stopped()
        started = time.perf_counter()
        self.run_clips([row for row in batch if row.waveform_T is not None], clock)
        clock.forward += time.perf_counter() - started
        for row in batch:
            if row.long:
                self.run_long_row(row, clock, evidence)
                row.long = None
        return batch

    def check_stopped(self) -> None:
        if self.hands.stopped.is_set():
            raise RunError("stopped")

    def run_clips(self, rows: list[DecodedRow], clock: StageClock) -> None:
        """Run the expert; take less where memory runs out, and rows one by one where it raises."""
        left = [rows] if rows else []
        tried_alone: set[DecodedRow] = set()  # where memory had run out
        while left:
            part = left.pop(0)
            cuts = self.budget.cut([self.padded_seconds(row.waveform_T) for row in part], self.expert.pads)
            if len(cuts) > 1:
                left = [part[cut] for cut in cuts] + left
                continue
            error = self.run_pass(part, clock)
            if error is None:
                continue
            if is_out_of_memory(error):
                free_memory(error)
                if len(part) > 1:
                    self.budget.ran_out(self.pass_seconds(part))
                    left.insert(0, part)
                elif part[0] not in tried_alone:  # once more, with all that was freed
                    tried_alone.add(part[0])
                    left.insert(0, part)
                else:
                    part[0].fail("oom", f"{part[0].seconds:.1f} s do not fit into memory ({self.what_ran_out(error)})")
            elif len(part) == 1:
                part[0].fail("expert_error", summarized(error))
            else:
                left = [[row] for row in part] + left

    def run_pass(self, part: list[DecodedRow], clock: StageClock) -> Exception | None:
        """One forward pass. Gives what it raised, where that may be due to its rows: then it is not caught any more."""
        waveforms = [row.waveform_T for row in part if row.waveform_T is not None]
        seconds = self.pass_seconds(part)
        try:
            frames = self.extract(waveforms)
        except Exception as e:  # noqa: BLE001  whatever a model raises is the outcome of the row that made it
            return self.of_rows(e)
        self.budget.fitted(seconds)
        rate = self.config.spec.sample_rate
        clock.padded_audio += seconds
        clock.unpadded_audio += sum(len(w) for w in waveforms) / rate
        for row, frames_ND in zip(part, frames, strict=True):
            row.given_ND, row.waveform_T = frames_ND, None
        return None

    def of_rows(self, error: Exception) -> Exception:
        """The same error, where it may be due to the rows; DeviceFault and other RunErrors are raised."""
        if isinstance(error, RunError):
            raise error
        if is_sticky(error):
            raise DeviceFault(
                f"{self.config.expert}: its device ({self.config.device}) failed, and is lost to this process "
                f"({summarized(error)})"
            ) from None
        return error

    def what_ran_out(self, error: Exception) -> str:
        return f"{self.config.device}: {summarized(error)}"

    def padded_seconds(self, waveform_T: Waveform | None) -> float:
        assert waveform_T is not None
        return self.expert.padded_samples(len(waveform_T)) / self.config.spec.sample_rate

    def pass_seconds(self, part: Sequence[DecodedRow]) -> float:
        return pass_seconds([self.padded_seconds(row.waveform_T) for row in part], self.expert.pads)

    def extract(self, waveforms: list[Waveform]) -> list[Frames]:
        """Frames of each, in order, whichever thread is done first."""
        if self.row_threads is None:
            return self.expert.extract(waveforms)
        return [frames for (frames,) in self.row_threads.map(lambda x: self.expert.extract([x]), waveforms)]

    def run_long_row(self, row: DecodedRow, clock: StageClock, evidence: Evidence) -> None:
        """A row window by window, of which a batch and the next one are decoded at a time; frames go to its spool.

        Where memory runs out it starts again with half the batch.
        """
        started, waited = time.perf_counter(), clock.wait
        while not row.spool and row.status == "ok":
            seconds = max(self.expert.window_s, min(self.expert.budget_seconds, self.budget.limit))
            error = self.run_windows(row, seconds, clock, evidence)
            if isinstance(error, AudioError):
                row.fail(error.reason, str(error))
            elif error is not None and is_out_of_memory(error):
                free_memory(error)
                self.budget.ran_out(seconds)
                if seconds <= self.expert.window_s:
                    window = f"a window of {self.expert.window_s:g} s"
                    row.fail("oom", f"{window} does not fit into memory ({self.what_ran_out(error)})")
            elif error is not None:
                row.fail("expert_error", summarized(error))
            else:
                self.budget.fitted(seconds)
        clock.forward += time.perf_counter() - started - (clock.wait - waited)

    def run_windows(
        self, row: DecodedRow, seconds: float, clock: StageClock, evidence: Evidence
    ) -> AudioError | Exception | None:
        """As `run_pass`, of a long row; windows of so many seconds at once."""
        u, long = row.planned.utterance, row.long
        try:
            if isinstance(long, tuple):  # was decoded before, for several experts
                samples_T, source = long
                self.stream(row, len(samples_T), iter([samples_T]), seconds, clock, lambda: source)
            else:
                evidence.believed(
                    u.audio, lambda data: self.stream_file(row, open_file(u.audio, data, long), seconds, clock)
                )
        except AudioError as e:
            return e
        except Exception as e:  # noqa: BLE001  whatever a model raises is the outcome of the row that made it
            return self.of_rows(e)
        return None

    def stream_file(self, row: DecodedRow, file: AudioFile, seconds: float, clock: StageClock) -> None:
        u, rate = row.planned.utterance, self.config.spec.sample_rate
        span = file.span(u.offset, u.duration)
        samples = resampled_length(span.samples, span.rate, rate)
        self.stream(row, samples, span.pieces(rate), seconds, clock, lambda: Source(span.digest, span.decoder))

    def stream(
        self,
        row: DecodedRow,
        samples: int,
        pieces: Iterator[Waveform],
        seconds: float,
        clock: StageClock,
        source: Callable[[], Source],
    ) -> None:
        """So many samples, in pieces; `source`: what they were, asked for at the end."""
        spec = self.config.spec
        spool = Spool(builds_folder(self.config.set_url), spec.dim, spec.dtype)
        plan = self.expert.windows(samples)
        group = max(1, int(seconds / self.expert.window_s))
        with read_ahead(self.hands.decoders, split_into_windows(pieces, plan), group) as cuts:
            windows = self.count_audio(timed(cuts, clock), clock)
            for frames_ND in kept_frames(self.expert.stream(windows, seconds), plan):
                part = DecodedRow(row.planned)
                accept_frames(spec, part, frames_ND)
                if part.frames_ND is None:
                    row.status, row.error = part.status, part.error
                    return
                spool.append(part.frames_ND)
        (row.source, row.decoder), row.spool = source(), spool

    def count_audio(self, windows: Iterable[Waveform], clock: StageClock) -> Iterator[Waveform]:
        for samples_T in windows:
            self.check_stopped()
            clock.padded_audio += self.padded_seconds(samples_T)
            clock.unpadded_audio += len(samples_T) / self.config.spec.sample_rate
            yield samples_T


def load_expert(config: WorkerConfig) -> Expert:
    """On the worker's device. RunError where its fingerprint is not the run's."""
    expert = create(config.expert, config.options)
    if expert.spec.fingerprint != config.spec.fingerprint:
        raise RunError(
            f"{config.expert}: this worker would give fingerprint {expert.spec.fingerprint}, the run is for "
            f"{config.spec.fingerprint}; the same weights and coat must be on every node"
        )
    torch.set_float32_matmul_precision("high")  # TF32, where there are tensor cores: a tenth of bfloat16's error
    torch.backends.cudnn.allow_tf32 = True
    if config.device == "cpu":
        keep_freed_memory()
    expert.frames_dtype, expert.chosen_batch_seconds = config.spec.dtype, config.batch_seconds
    expert.load(config.device)
    return expert
