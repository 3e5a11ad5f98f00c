"""Audio ahead of the expert, from a pool of threads."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from coat.pipeline.plan.units import PlannedRow

PREFETCH_BATCHES = 2  # decoded ahead of the expert

Decoded = TypeVar("Decoded")
Piece = TypeVar("Piece")


def decode_ahead(
    pool: ThreadPoolExecutor,
    decode_rows: Callable[[Sequence[PlannedRow]], dict[str, Decoded]],
    batches: list[list[PlannedRow]],
) -> Iterator[list[Decoded]]:
    """Decoded batches in order, PREFETCH_BATCHES ahead of the one that is taken; spans of a file are decoded at once.

    So what lies in memory is those batches, and spans of their files that later batches hold.
    """
    spans: dict[str, list[PlannedRow]] = {}
    for row in (row for batch in batches for row in batch):
        spans.setdefault(row.utterance.audio, []).append(row)
    decoding: dict[str, Future[dict[str, Decoded]]] = {}

    def start(batch: list[PlannedRow]) -> None:
        for audio in (row.utterance.audio for row in batch):
            if audio not in decoding:
                decoding[audio] = pool.submit(decode_rows, spans[audio])

    def take(row: PlannedRow) -> Decoded:
        return decoding[row.utterance.audio].result().pop(row.digest)

    for batch in batches[:PREFETCH_BATCHES]:
        start(batch)

    def taken() -> Iterator[list[Decoded]]:
        for i, batch in enumerate(batches):
            ready = [take(row) for row in batch]
            for following in batches[i + PREFETCH_BATCHES :][:1]:
                start(following)
            yield ready

    return taken()


@contextmanager
def read_ahead(pool: ThreadPoolExecutor, items: Iterator[Piece], group: int) -> Iterator[Iterator[Piece]]:
    """The same items, read in the pool, a group ahead of those that are taken. On return no read is at work."""

    def read_group() -> list[Piece]:
        return list(itertools.islice(items, group))

    reading = pool.submit(read_group)

    def taken() -> Iterator[Piece]:
        nonlocal reading
        while found := reading.result():
            reading = pool.submit(read_group)
            yield from found

    try:
        yield taken()
    finally:
        wait([reading])
