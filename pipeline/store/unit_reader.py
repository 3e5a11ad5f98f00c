"""Many rows of one unit in few requests. N frames, D dim.

Where a chunk lies follows from the number of frames (`frames_writer`), so neither zarr.json nor an index is needed to
find it. Ranges that lie close to each other are read at once: most units are one request. Every shard's index is
compared and every chunk's CRC-32C computed; a unit that is not as expected (damaged, or written by another writer) is
left to Zarr, which reads it or says what is wrong.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.errors import Unreachable
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.frames_reader import block_spans, lazy_frames, read_frames
from coat.pipeline.store.frames_writer import CHUNK_FRAMES, SHARD_BYTES, as_bytes, checksum

GAP_BYTES = 4 * 2**20  # read along rather than asked for apart: as long as one request takes to be answered
RANGE_BYTES = 2**28  # of one request: any shard; where it is cut off, the storage layer goes on behind what came
CRC_BYTES = 4


class NotAsWritten(Exception):
    """A shard does not have the bytes that coat's writer would have put there."""


@dataclass(frozen=True)
class UnitFrames:
    """The frames of one unit: where they lie, how many there are, and of what kind."""

    url: str  # of frames.zarr
    frames: int
    dim: int
    dtype: str

    @classmethod
    def of(cls, url: str, frames: int, spec: TargetSpec) -> "UnitFrames":
        return cls(url, frames, spec.dim, spec.dtype)

    @property
    def chunk_bytes(self) -> int:
        """Of its values; its checksum comes on top."""
        return CHUNK_FRAMES * self.dim * np.dtype(self.dtype).itemsize

    @property
    def chunks(self) -> int:
        return -(-self.frames // CHUNK_FRAMES)

    @property
    def shard_chunks(self) -> int:
        """That one shard has room for."""
        most = max(1, SHARD_BYTES // self.chunk_bytes)
        return most if self.chunks > most else max(1, self.chunks)

    def read(self, spans: Sequence[tuple[int, int]]) -> list[NDArray[Any]]:
        """`[count, dim]` of each span (first, count). RunError where the unit was damaged after its commit."""
        wanted = sorted({c for first, count in spans for c in chunks_of(first, count)})
        try:
            chunks = dict(self.read_chunks(wanted))
        except Unreachable:
            raise
        except (NotAsWritten, OSError):  # Zarr says which, and what to do
            return [read_frames(self.url, first, count, self.dim) for first, count in spans]
        return [self.join(chunks, first, count) for first, count in spans]

    def read_chunks(self, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Number and values `[CHUNK_FRAMES, dim]` of each wanted chunk, in order."""
        room = self.shard_chunks
        for shard in sorted({chunk // room for chunk in wanted}):
            of_shard = [chunk - shard * room for chunk in wanted if chunk // room == shard]
            for chunk, values in self.read_shard(shard, of_shard):
                yield shard * room + chunk, values

    def read_shard(self, shard: int, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[Any]]]:
        length = self.chunk_bytes + CRC_BYTES
        held = min(self.shard_chunks, self.chunks - shard * self.shard_chunks)
        index_start = held * length
        end = index_start + 16 * self.shard_chunks + CRC_BYTES
        url = storage.join(self.url, "c", str(shard), "0")
        parts = [(chunk * length, (chunk + 1) * length) for chunk in wanted] + [(index_start, end)]
        data = {start: read_exactly(url, start, stop) for start, stop in merge_ranges(parts)}
        starts = np.array(sorted(data))

        def part(start: int, stop: int) -> memoryview:
            """From one range, or from two that were cut between them."""
            first = int(starts[np.searchsorted(starts, start, side="right") - 1])
            found = memoryview(data[first])[start - first : stop - first]
            return (
                found
                if len(found) == stop - start
                else memoryview(bytes(found) + bytes(part(first + len(data[first]), stop)))
            )

        check_index(part(index_start, end), held, self.shard_chunks, length, url)
        for chunk in wanted:
            block = np.frombuffer(part(chunk * length, (chunk + 1) * length), np.uint8)
            values = block[:-CRC_BYTES]
            if checksum(values) != block[-CRC_BYTES:].tobytes():
                raise NotAsWritten(f"{url}: chunk {chunk}")
            yield chunk, values.view(np.dtype(self.dtype).newbyteorder("<")).reshape(CHUNK_FRAMES, self.dim)

    def join(self, chunks: dict[int, NDArray[Any]], first: int, count: int) -> NDArray[Any]:
        """The frames of a span, copied out of its chunks."""
        parts = []
        for chunk in chunks_of(first, count):
            start = chunk * CHUNK_FRAMES
            parts.append(chunks[chunk][max(0, first - start) : first + count - start])
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), self.dtype)


def chunks_of(first: int, count: int) -> range:
    return range(first // CHUNK_FRAMES, -(-(first + count) // CHUNK_FRAMES)) if count else range(0)


def merge_ranges(parts: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges in order, those less than GAP_BYTES apart as one, cut where they are longer than RANGE_BYTES."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(parts):
        if merged and start - merged[-1][1] <= GAP_BYTES:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    for start, stop in merged:
        for at in range(start, stop, RANGE_BYTES):
            yield at, min(at + RANGE_BYTES, stop)


def read_exactly(url: str, start: int, stop: int) -> bytes:
    data = storage.read_range(url, start, stop)
    if len(data) != stop - start:
        raise NotAsWritten(f"{url}: ends at byte {start + len(data)}, not {stop}")
    return data


def check_index(data: memoryview, held: int, room: int, length: int, url: str) -> None:
    """NotAsWritten unless chunks lie one after the other, as `frames_writer` puts them."""
    index = np.full((room, 2), 2**64 - 1, "<u8")
    index[:held, 0] = np.arange(held) * length
    index[:held, 1] = length
    expected = as_bytes(index)
    if bytes(data) != expected.tobytes() + checksum(expected):
        raise NotAsWritten(f"{url}: its index")


def dask_units(units: Sequence[UnitFrames], dim: int) -> Any:
    """As `dask_frames`; on an object store a unit is read as a whole, not block by block."""
    spans = [(unit, first, count) for unit in units for first, count in block_spans(unit.frames, dim)]
    return lazy_frames(spans, [count for _, _, count in spans], dim, read_unit_block)


def read_unit_block(span_1: NDArray[Any]) -> NDArray[np.float32]:
    unit, first, count = span_1[0]
    if storage.is_local(unit.url):
        return unit.read([(first, count)])[0].astype(np.float32)
    with WHOLE_UNIT:  # one thread reads it, the others of its blocks wait
        whole_ND = read_whole(unit)
    return whole_ND[first : first + count].astype(np.float32)


@lru_cache(maxsize=2)
def read_whole(unit: UnitFrames) -> NDArray[Any]:
    return unit.read([(0, unit.frames)])[0]


WHOLE_UNIT = threading.Lock()
