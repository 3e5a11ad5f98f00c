"""Which samples a shard set has, in the order of its tars, small enough to be kept with a run.

RUN/data/data.json               the sets of the run: identity and longest audio; what the block has positions for
RUN/data/<identity>/index.json   of each shard set that the run has read
RUN/data/<identity>/samples.npy  uint64 a sample: a digest of its key and its sound
RUN/data/left-<digest>.npy       what is left of an epoch that was dealt anew: a bit a sample of the set

Shards may be rebuilt with some samples less or more while a run stands still. With these a run knows which of the
samples now were given already in its epoch, though the tars of then are gone.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.manifests import InputError, RunError, ShardIndex, storage
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.order import left_digest

COLUMNS = ("key", "digest", "source", "duration")


@dataclass(frozen=True)
class SampleRecord:
    """`samples` is empty where the set has no samples.parquet: of before there was one."""

    index: ShardIndex
    samples: NDArray[np.uint64]
    longest_s: float | None  # of a sample's audio; None where it is not known

    @property
    def known(self) -> bool:
        return len(self.samples) == self.index.samples


def record_of(index: ShardIndex) -> SampleRecord:
    """Reads samples.parquet, some rows at a time: half a minute for ten million."""
    if not index.samples_xxh3:
        return SampleRecord(index, np.zeros(0, np.uint64), None)
    digests, longest = np.zeros(index.samples, np.uint64), 0.0
    for number, (key, digest, source, seconds) in enumerate(rows_of(index)):
        if number == len(digests):
            raise InputError(f"{index.path}: samples.parquet has more rows than index.json has samples; build it again")
        digests[number] = xxhash.xxh3_64_intdigest(f"{key} {source or digest}".encode())
        longest = max(longest, seconds)
    return SampleRecord(index, digests, longest)


def rows_of(index: ShardIndex) -> Iterator[tuple[Any, ...]]:
    with index.open_samples() as samples:
        for table in samples.tables(COLUMNS):
            yield from zip(*(table.column(name).to_pylist() for name in COLUMNS), strict=True)


def longest_seconds(data: DataSets, audio_s: Mapping[str, float | None]) -> float | None:
    """The longest audio that the run can meet; None where that is not known. `audio_s`: that of the sets, by name."""
    longest = 0.0
    for one in data.sets:
        bounds = [s for s in (one.limits(data.config).max_seconds, audio_s.get(one.name)) if s is not None]
        if not bounds:
            return None
        longest = max(longest, min(bounds))
    return longest


def block_seconds(config: TrainConfig, data: DataSets) -> float | None:
    """What a run of these would have thinking positions for, see `RunData.block_s`."""
    if config.thinking.rate_hz is None:
        return None
    return longest_seconds(data, {one.name: record_of(one.index).longest_s for one in data.sets})


class RunData:
    """The folder `data` of a run. Only the main rank writes."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "data"

    @property
    def file(self) -> Path:
        return self.folder / "data.json"

    def read(self) -> dict[str, Any] | None:
        """None in a run that was begun before there was one."""
        return storage.read_json(str(self.file)) if self.file.exists() else None

    def write(self, identities: Mapping[str, str], audio_s: Mapping[str, float | None], block_s: float | None) -> None:
        """`identities` and `audio_s`, the longest audio: of the sets, by name."""
        found = {"sets": dict(identities), "audio_s": dict(audio_s), "block_s": block_s}
        storage.write_bytes(str(self.file), storage.to_json(found))

    @property
    def audio_s(self) -> dict[str, float | None]:
        return (self.read() or {}).get("audio_s", {})

    @property
    def block_s(self) -> float | None:
        """Of the audio that the run has thinking positions for; None: as long as the student hears."""
        return (self.read() or {}).get("block_s")

    def keep(self, record: SampleRecord) -> None:
        folder = self.folder / record.index.identity
        index = replace(record.index, sidecars={})  # with all experts
        index.write(str(folder))
        storage.write_bytes(str(folder / "samples.npy"), to_npy(record.samples))

    def has(self, identity: str) -> bool:
        return (self.folder / identity / "samples.npy").exists()

    def record(self, identity: str) -> SampleRecord:
        """RunError where the run has none of this set."""
        folder = self.folder / identity
        if not self.has(identity):
            raise RunError(f"{folder}: not there, but the checkpoint was written with it; put it back, or --restart")
        samples = np.load(folder / "samples.npy", allow_pickle=False)
        return SampleRecord(ShardIndex.read(str(folder)), samples, None)

    def keep_left(self, left: NDArray[np.bool_]) -> None:
        path = self.folder / f"left-{left_digest(left)}.npy"
        storage.write_bytes(str(path), to_npy(np.packbits(left)))

    def left(self, digest: str, samples: int) -> NDArray[np.bool_]:
        """RunError where it is not there, or not what the checkpoint was written with."""
        path = self.folder / f"left-{digest}.npy"
        try:
            left = np.unpackbits(np.load(path, allow_pickle=False), count=samples).astype(bool)
        except (FileNotFoundError, ValueError) as e:
            raise RunError(
                f"{path}: cannot be read, but the checkpoint needs it ({e}); put it back, or --restart"
            ) from e
        if left_digest(left) != digest:
            raise RunError(f"{path}: is damaged; put it back, or --restart")
        return left


def to_npy(array: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()
