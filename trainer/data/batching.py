"""Which samples each batch is made of: as they come, or those of a window that are about as long."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from coat.trainer.config.sections import DataConfig
from coat.trainer.data.cursor import LoaderCursor, WindowInHand
from coat.trainer.data.data_sets import SampleStream
from coat.trainer.data.samples import RawSample


@dataclass(frozen=True)
class PlannedBatch:
    samples: list[RawSample]
    next_cursor: LoaderCursor  # of the batch behind it

    @property
    def bytes(self) -> int:
        return sum(raw.bytes for raw in self.samples)


def plan_batches(
    stream: SampleStream, begun: WindowInHand | None, config: DataConfig, length_of: Callable[[RawSample], int]
) -> Generator[PlannedBatch]:
    """Batches without end. `begun`: the batches of the first window that were given are left out."""
    try:
        if config.batch_tokens is None:
            while True:
                yield PlannedBatch(list(islice(stream, config.batch_size)), LoaderCursor(stream.cursor))
        while True:
            yield from batches_of_window(stream, begun, config, length_of)
            begun = None
    finally:
        stream.close()


def batches_of_window(
    stream: SampleStream, begun: WindowInHand | None, config: DataConfig, length_of: Callable[[RawSample], int]
) -> Generator[PlannedBatch]:
    assert config.batch_tokens is not None
    begin = stream.cursor
    window = stream.next_window(begun.length if begun else 0)
    groups = group_by_length([length_of(raw) for raw in window.samples], config.batch_size, config.batch_tokens)
    batches = [groups[i] for i in window.random.permutation(len(groups))]
    places = [place for batch in batches for i in batch if (place := window.samples[i].place)]
    end, given = stream.cursor, 0
    for number, batch in enumerate(batches, 1):
        given += len(batch)
        if begun and number <= begun.batch:
            continue
        next_cursor = LoaderCursor(end)
        if number < len(batches):
            in_hand = WindowInHand(number, len(window.samples), end, tuple(places[given:]))
            next_cursor = LoaderCursor(begin, in_hand)
        yield PlannedBatch([window.samples[i] for i in batch], next_cursor)


def group_by_length(lengths: Sequence[int], size: int, budget: int) -> list[list[int]]:
    """Indices in groups of like length, each of at most `size`, and of `budget` when padded to its longest.

    What is longer than the budget is alone; equal lengths keep their order.
    """
    groups: list[list[int]] = []
    for i in np.argsort(lengths, kind="stable").tolist():
        if groups and len(groups[-1]) < size and lengths[i] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
