"""Rows of a unit cut into batches for the expert."""

from collections.abc import Iterator, Sequence

from coat.extractors.expert import Expert
from coat.pipeline.plan.units import PlannedRow

BATCH_CLIPS = 256  # of very short clips
PADDING_LIMIT = 0.04  # of a batch: one that would hold more padding is cut; felt by small corpora alone


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
