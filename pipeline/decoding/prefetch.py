"""Audio ahead of the expert, from a pool of threads."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from coat.pipeline.decoding.shared_audio import SharedFile
from coat.pipeline.plan.units import PlannedRow

PREFETCH_BATCHES = 2  # decoded ahead of the expert
DOWNLOAD_BATCHES = 4  # whose remote files are asked for: a store answers many requests as fast as one
# Formats that libsndfile enters at any sample. A name that lies costs time, not samples.
RANDOM_ACCESS = (".flac", ".wav", ".w64", ".rf64", ".aif", ".aiff", ".au", ".caf", ".ogg", ".oga", ".opus")

Decoded = TypeVar("Decoded")
Piece = TypeVar("Piece")


def decode_ahead(
    pool: ThreadPoolExecutor,
    downloads: ThreadPoolExecutor,
    decode_rows: Callable[[SharedFile, Sequence[PlannedRow]], dict[str, Decoded]],
    batches: list[list[PlannedRow]],
    share_file: Callable[[str, bool], SharedFile] = SharedFile,
) -> Iterator[list[Decoded]]:
    """Decoded batches in order, PREFETCH_BATCHES ahead of the one that is taken; downloads are DOWNLOAD_BATCHES ahead.

    Spans of a file are decoded one by one where its format can be entered anywhere; else together, in their order.
    `share_file`: gives the file of an address, where other units use it as well.
    So what lies in memory is those batches, and of files that are decoded together, spans that later batches hold.
    """
    spans: dict[str, list[PlannedRow]] = {}
    for row in (row for batch in batches for row in batch):
        spans.setdefault(row.utterance.audio, []).append(row)
    files = {audio: share_file(audio, has_parts(rows)) for audio, rows in spans.items()}
    decoding: dict[str, Future[dict[str, Decoded]]] = {}  # by digest of a row

    def start(batch: list[PlannedRow]) -> None:
        for row in batch:
            audio = row.utterance.audio
            if row.digest not in decoding:
                rows = [row] if has_random_access(audio) else spans[audio]
                decoding.update(dict.fromkeys((r.digest for r in rows), pool.submit(decode_rows, files[audio], rows)))
            if row is spans[audio][-1]:
                del files[audio]  # with what is held of it, once it is decoded

    def download(batch: list[PlannedRow]) -> None:
        for row in batch:
            if not row.fault:
                files[row.utterance.audio].download_in(downloads)

    def take(row: PlannedRow) -> Decoded:
        return decoding.pop(row.digest).result().pop(row.digest)

    for batch in batches[:DOWNLOAD_BATCHES]:
        download(batch)
    for batch in batches[:PREFETCH_BATCHES]:
        start(batch)

    def taken() -> Iterator[list[Decoded]]:
        for i, batch in enumerate(batches):
            for later in batches[i + DOWNLOAD_BATCHES :][:1]:
                download(later)
            ready = [take(row) for row in batch]
            for following in batches[i + PREFETCH_BATCHES :][:1]:
                start(following)
            yield ready

    return taken()


def has_parts(rows: Sequence[PlannedRow]) -> bool:
    """Whether rows of a unit that are of one file show that there are others of it."""
    return len(rows) > 1 or any(row.utterance.offset > 0 for row in rows)


def has_random_access(audio: str) -> bool:
    return audio.lower().endswith(RANDOM_ACCESS)


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
