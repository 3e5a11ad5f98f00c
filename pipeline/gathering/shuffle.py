"""An external shuffle of frames: read unit by unit, each once, and put away by block of samples.

A job reads some units and sorts what is wanted of them by block. What it puts away is one file with a region for each
block, or on Ray one object for each block. The worker that encodes a block reads the regions that all jobs have of it.
Each region begins with the length of its list of contents, and the list. N spans, B blocks.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.errors import RunError
from coat.pipeline.gathering.frames import GatheredFrames, Place, Source
from coat.pipeline.gathering.spool import Spool

LENGTH_BYTES = 8  # of a list of contents: its length, little-endian


@dataclass(frozen=True)
class FileRegion:
    """Part of a file of this machine."""

    path: Path
    start: int
    stop: int

    def read(self, start: int, stop: int) -> bytes:
        """Counted from the start of the region."""
        with self.path.open("rb") as f:
            f.seek(self.start + start)
            return f.read(stop - start)


Region = FileRegion | NDArray[np.uint8]


@dataclass(frozen=True)
class ShuffledFile:
    """A file by blocks. Indexed by the number of a block, so that a pool hands its regions out one by one."""

    path: Path
    starts: NDArray[np.int64]  # [B + 1]

    def __getitem__(self, block: int) -> FileRegion:
        return FileRegion(self.path, int(self.starts[block]), int(self.starts[block + 1]))


@dataclass(frozen=True)
class ShuffleJob:
    """Spans of some units of one target set, each with the block that it is for. `path` None: to memory (on Ray)."""

    name: str  # of the set
    source: Source
    units: tuple[str, ...]
    unit_N: NDArray[np.int32]  # index into `units`
    first_N: NDArray[np.int64]
    frames_N: NDArray[np.int64]
    block_N: NDArray[np.int32]  # ascending
    blocks: int
    path: Path | None


def shuffle_units(job: ShuffleJob) -> ShuffledFile | tuple[NDArray[np.uint8], ...]:
    """RunError where a unit was damaged, or the disk does not take it."""
    wanted: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for unit, first, frames in zip(job.unit_N.tolist(), job.first_N.tolist(), job.frames_N.tolist(), strict=True):
        wanted[job.name, job.units[unit]][first] = frames
    with Spool() as spool:
        gathered = GatheredFrames({job.name: job.source}, spool)
        gathered.gather_spans(wanted)
        regions = (b"".join(region_parts(job, gathered, block)) for block in range(job.blocks))
        if job.path is None:
            arrays = [np.frombuffer(region, np.uint8) for region in regions]
            return tuple(arrays) if len(arrays) > 1 else arrays[0]  # pyright: ignore[reportReturnType]  as Ray wants it
        return write_regions(job.path, regions, job.blocks)


def region_parts(job: ShuffleJob, gathered: GatheredFrames, block: int) -> Iterator[bytes]:
    first, stop = np.searchsorted(job.block_N, [block, block + 1]).tolist()
    if first == stop:
        return
    units = [job.units[unit] for unit in job.unit_N[first:stop].tolist()]
    spans = list(zip(units, job.first_N[first:stop].tolist(), job.frames_N[first:stop].tolist(), strict=True))
    contents = json.dumps([job.name, spans]).encode()
    yield len(contents).to_bytes(LENGTH_BYTES, "little")
    yield contents
    for unit, at, frames in spans:
        yield gathered.span_bytes(job.name, unit, at, 0, frames)


def write_regions(path: Path, regions: Iterator[bytes], blocks: int) -> ShuffledFile:
    starts = np.zeros(blocks + 1, np.int64)
    try:
        with path.open("wb") as f:
            for block, region in enumerate(regions):
                f.write(region)
                starts[block + 1] = f.tell()
    except OSError as e:
        raise RunError(
            f"{path.parent}: cannot hold the frames of a shuffle ({os.strerror(e.errno or 0)}); point --scratch at a "
            "larger disk, or give --scratch-size"
        ) from e
    return ShuffledFile(path, starts)


def region_places(region: Region, frame_bytes: Mapping[str, int]) -> Iterator[tuple[tuple[str, str, int], Place]]:
    """Where each (set, unit, first frame) of a region lies. `frame_bytes`: by set."""
    if isinstance(region, FileRegion):
        size = region.stop - region.start

        def read(start: int, stop: int) -> bytes:
            return region.read(start, stop)
    else:
        size = len(region)

        def read(start: int, stop: int) -> bytes:
            return region[start:stop].tobytes()

    if not size:
        return
    length = int.from_bytes(read(0, LENGTH_BYTES), "little")
    at = LENGTH_BYTES + length
    data: Any = json.loads(read(LENGTH_BYTES, at))
    name, spans = data
    for unit, first, frames in spans:
        yield (name, unit, first), Place(read, at)
        at += frames * frame_bytes[name]
    assert at == size, (at, size)
