"""The tars of a sidecar."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.corpus.digests import from_hex
from coat.manifests.errors import InputError
from coat.manifests.shards.index import SIDECARS, ShardIndex
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.tar import TAR_END, sample_bytes
from coat.manifests.targets.members import to_members
from coat.manifests.targets.reduction import Reduction
from coat.pipeline.shards.encoding import open_set
from coat.pipeline.shards.plan import listed
from coat.pipeline.shards.recipe import Missing
from coat.pipeline.shards.segments import span
from coat.pipeline.store.rows import OK, Row
from coat.pipeline.store.target_set import TargetSet


@dataclass(frozen=True)
class SideJob:
    """One tar: of each sample that has a target its key, its row, and the piece of the utterance that it is."""

    url: str  # of the tar
    set_url: str
    expert: str
    samples: tuple[tuple[str, Row, float, float | None], ...]
    seconds: float
    reduction: Reduction | None

    @property
    def digest(self) -> str:
        what = {**asdict(self), "reduction": self.reduction and self.reduction.digest}
        return xxhash.xxh3_64_hexdigest(storage.to_json(what, indent=None))


@dataclass(frozen=True)
class SideBuilt:
    info: ShardInfo
    keys: tuple[str, ...]
    lengths: tuple[int, ...]
    frames: tuple[int, ...]


def side_jobs(
    index: ShardIndex,
    table: pa.Table,
    name: str,
    targets: TargetSet,
    reduction: Reduction | None,
    missing: Missing,
) -> Iterator[SideJob]:
    """InputError, before anything is written, where targets are missing that may not be."""
    places = places_of(table, targets)
    lacking = np.flatnonzero((places < 0) & (table["duration"].to_numpy() > 0))  # text alone lacks nothing
    if len(lacking) and missing == "fail":
        ids = table["id"].take(pa.array(lacking[:1000])).to_pylist()
        named = [(identity, f"{name} was not extracted, or heard other audio") for identity in ids]
        raise InputError(
            f"{index.path}: {len(lacking)} of {len(table)} samples lack a target of {name}: {listed(named)}; "
            "extract them, or give --missing mask"
        )
    ends = np.searchsorted(table["shard"].to_numpy(), np.arange(len(index.shards) + 1))
    for number, shard in enumerate(index.shards):
        rows = table.slice(ends[number], ends[number + 1] - ends[number]).to_pylist()
        at = places[ends[number] : ends[number + 1]].tolist()
        samples = tuple(
            (row["key"], targets.rows.at(place), row["start"], None if row["whole"] else row["duration"])
            for row, place in zip(rows, at, strict=True)
            if place >= 0
        )
        seconds = sum(row["duration"] for row, place in zip(rows, at, strict=True) if place >= 0)
        url = storage.join(index.path, SIDECARS, name, shard.name)
        yield SideJob(url, targets.url, name, samples, round(seconds, 6), reduction)


def places_of(table: pa.Table, targets: TargetSet) -> NDArray[np.int64]:
    """Of each sample's target in the rows of the set; -1 where there is none of the sound that the shards hold."""
    rows = targets.rows
    places = rows.find(from_hex(table["digest"].combine_chunks()))
    is_ok = np.append(rows.status == OK, False)[places]
    heard = np.array([*rows.place["source"].to_pylist(), None], dtype=object)[places]
    held = np.array(table["source"].to_pylist(), dtype=object)
    unknown = np.array([source is None for source in held], dtype=bool)
    same = (heard == held) | unknown
    return np.where(is_ok & same, places, -1)


def build_side_tar(job: SideJob) -> SideBuilt:
    data, built = side_tar(job)
    storage.write_bytes(job.url, data)
    return built


def side_tar(job: SideJob) -> tuple[bytes, SideBuilt]:
    targets = open_set(job.set_url)
    parts, frames = [], []
    for key, row, start, seconds in job.samples:
        first, stop = span(row, targets.spec.rate_hz, start, seconds)
        members, held = to_members(job.expert, targets.read_row(row).frames[first:stop], job.reduction)
        parts.append(sample_bytes(key, members))
        frames.append(held)
    data = b"".join([*parts, TAR_END])
    info = ShardInfo(
        name=job.url.rsplit("/", 1)[-1],
        samples=len(parts),
        bytes=len(data),
        seconds=job.seconds,
        xxh3=xxhash.xxh3_128_hexdigest(data),
    )
    keys = tuple(key for key, *_ in job.samples)
    return data, SideBuilt(info, keys, tuple(map(len, parts)), tuple(frames))
