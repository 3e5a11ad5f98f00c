"""Rows on their way through a worker: cut into batches, decoded, then with their frames, or why there are none.

N frames, D dim, T samples.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coat.extractors.expert import Expert, Waveform
from coat.manifests.audio.decoding import AudioError, AudioFile, resampled_length
from coat.pipeline.plan.plan import PlannedRow
from coat.pipeline.store.rows import Status
from coat.pipeline.worker.spool import Spool

BATCH_CLIPS = 256  # of very short clips
PADDING_LIMIT = 0.04  # of a batch: one that would hold more padding is cut; felt by small corpora alone


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


def cut_batches(rows: Sequence[PlannedRow], expert: Expert) -> Iterator[list[PlannedRow]]:
    """Rows cut by their padded audio, from planned lengths alone: the same batches on every run.

    A row that is longer than a window is a batch of its own.
    """
    rate = expert.spec.sample_rate
    batch: list[PlannedRow] = []
    longest = total = 0  # samples
    for row in rows:
        planned = round(row.seconds * rate)
        long = planned > expert.window_s * rate
        samples = expert.padded_samples(planned)
        padded = max(longest, samples) * (len(batch) + 1)
        wasteful = expert.pads and padded - total - samples > PADDING_LIMIT * padded
        full = padded > expert.budget_seconds * rate or len(batch) == BATCH_CLIPS
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


def decode_rows(expert: Expert, rows: Sequence[PlannedRow]) -> dict[str, Heard]:
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
            decode_row(expert, h, file)
            h.decode_seconds = time.perf_counter() - started
    return heard


def decode_row(expert: Expert, heard: Heard, file: AudioFile) -> None:
    u, spec = heard.planned.utterance, expert.spec
    try:
        span = file.span(u.offset, u.duration)
        samples = resampled_length(span.samples, span.rate, spec.sample_rate)
        heard.seconds = span.seconds
        if len(expert.windows(samples)) > 1:
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
