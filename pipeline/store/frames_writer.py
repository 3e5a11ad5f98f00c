"""Writing a unit's frames.zarr as a stream: a Zarr v3 array `[N, D]` whose N is known only at the end.

512-frame chunks with a CRC-32C each, in shards of at most SHARD_BYTES; a unit below that is one shard.
Not compressed: float16 hidden states shrink by a few percent and cost more time than that.

The bytes of a shard are put down here and not by Zarr, whose writer wants a whole shard in memory and
copies it several times. They are the bytes that Zarr writes (a test holds that): chunk after chunk, then
the index, as in the specification of the codec `sharding_indexed`. The metadata are Zarr's own.
"""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.pipeline.store.uncached_file import UncachedFile

if TYPE_CHECKING:
    import zarr  # slow to import, and many that import this module read or write without it

CHUNK_FRAMES = 512  # what a random read costs at least
SHARD_BYTES = 128 * 2**20  # one object of a store: large enough to list few, small enough to put at once
MISSING_CHUNK = 2**64 - 1  # offset and length of a chunk that a shard does not hold


class FramesWriter:
    """Append frames, then `close`. The bytes follow from the frames alone, not from how they were appended.

    Memory is one chunk and what is written at once: a chunk is written when it is full. OSError where the disk does
    not take it. `read_soon`: the files are to be uploaded, so they may stay in memory.
    """

    def __init__(self, path: Path, dim: int, dtype: str, read_soon: bool = False) -> None:
        self.path, self.read_soon = path, read_soon
        self.frames = 0
        self.digest = xxhash.xxh3_128()  # of the values in C order
        self.chunk = np.zeros((CHUNK_FRAMES, dim), np.dtype(dtype).newbyteorder("<"))
        self.shard_chunks = max(1, SHARD_BYTES // self.chunk.nbytes)
        self.frames_in_chunk = 0
        self.chunks_written = 0
        self.shard: UncachedFile | None = None

    def __enter__(self) -> "FramesWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        if self.shard:
            with contextlib.suppress(OSError):  # a full disk does not take the rest either; its folder is dropped
                self.shard.close()

    @property
    def nbytes(self) -> int:
        return self.frames * self.chunk[0].nbytes

    def append(self, frames_ND: NDArray[Any]) -> None:
        assert frames_ND.shape[1:] == self.chunk.shape[1:], frames_ND.shape
        frames_ND = np.ascontiguousarray(frames_ND, self.chunk.dtype)
        self.digest.update(as_bytes(frames_ND).data)
        self.frames += len(frames_ND)
        start = 0
        while start < len(frames_ND):
            if not self.frames_in_chunk and len(frames_ND) - start >= CHUNK_FRAMES:
                self.write_chunk(frames_ND[start : start + CHUNK_FRAMES])
                start += CHUNK_FRAMES
                continue
            count = min(CHUNK_FRAMES - self.frames_in_chunk, len(frames_ND) - start)
            self.chunk[self.frames_in_chunk : self.frames_in_chunk + count] = frames_ND[start : start + count]
            self.frames_in_chunk += count
            start += count
            if self.frames_in_chunk == CHUNK_FRAMES:
                self.write_chunk(self.chunk)
                self.frames_in_chunk = 0

    def write_chunk(self, chunk_ND: NDArray[Any]) -> None:
        if self.chunks_written and self.chunks_written % self.shard_chunks == 0:
            self.finish_shard(self.shard_chunks)
        if self.shard is None:
            path = self.path / "c" / str(self.chunks_written // self.shard_chunks) / "0"
            self.make_folders(path.parent)
            self.shard = UncachedFile(path, direct=not self.read_soon)  # closed when it is full, or by __exit__
        data = as_bytes(chunk_ND)
        self.shard.write(data)
        self.shard.write(checksum(data))
        self.chunks_written += 1

    def make_folders(self, *more: Path) -> None:
        """Ours alone: where the folder above is gone, the store was removed, and is not made again in silence."""
        for folder in (self.path, self.path / "c", *more):
            folder.mkdir(exist_ok=True)

    def finish_shard(self, chunks: int) -> None:
        """The index of `chunks` chunks: offset and length of each, and their checksum."""
        assert self.shard is not None
        chunks_held = (self.chunks_written - 1) % self.shard_chunks + 1
        length = self.chunk.nbytes + 4
        index = np.full((chunks, 2), MISSING_CHUNK, "<u8")
        index[:chunks_held, 0] = np.arange(chunks_held) * length
        index[:chunks_held, 1] = length
        self.shard.write(as_bytes(index))
        self.shard.write(checksum(as_bytes(index)))
        self.shard.finish()
        self.shard = None

    def close(self) -> None:
        """Write what is left, and the metadata."""
        if self.frames_in_chunk:
            self.chunk[self.frames_in_chunk :] = 0  # Zarr's fill value, as its writer pads
            self.write_chunk(self.chunk)
        chunks = self.shard_chunks if self.chunks_written > self.shard_chunks else max(1, self.chunks_written)
        if self.shard:
            self.finish_shard(chunks)
        self.path.mkdir(exist_ok=True)
        create_array(self.path, self.frames, self.chunk.shape[1], self.chunk.dtype, chunks)


def create_array(path: Path, frames: int, dim: int, dtype: Any, shard_chunks: int) -> "zarr.Array":
    """The metadata of `[frames, dim]`; its shards may lie there already."""
    import zarr
    from zarr.codecs import Crc32cCodec

    return zarr.create_array(
        path,
        shape=(frames, dim),
        chunks=(CHUNK_FRAMES, dim),
        shards=(shard_chunks * CHUNK_FRAMES, dim),
        dtype=dtype,
        compressors=[Crc32cCodec()],
        fill_value=0,
        dimension_names=("frame", "dim"),
    )


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a contiguous array, not copied."""
    return array.reshape(-1).view(np.uint8)


def checksum(data: NDArray[np.uint8]) -> bytes:
    """CRC-32C, little-endian, as the codec `crc32c` appends it."""
    return google_crc32c.value(data).to_bytes(4, "little")  # type: ignore[arg-type]
