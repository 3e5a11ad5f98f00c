"""Sidecars: the targets of one expert in tars of their own, beside those of a set, which are not touched.

    OUT/sidecars/<expert>/shard-000000.tar   `<key>.<expert>.npy`, in the order of OUT/shard-000000.tar
    OUT/sidecars/<expert>/samples.parquet    shard, key, offset, length, frames
    OUT/sidecars/<expert>/index.json         written last; names the set that it was made for

Which audio an utterance had is known from the set's samples.parquet, so no audio is decoded.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.corpus.digests import from_hex
from coat.manifests.errors import InputError
from coat.manifests.shards.index import (
    INDEX_NAME,
    SIDE_SAMPLES,
    SIDECARS,
    ShardIndex,
    ShardInfo,
    Sidecar,
    samples_schema,
    write_samples_table,
)
from coat.manifests.shards.tar import END, sample_bytes
from coat.manifests.targets.members import to_members
from coat.manifests.targets.reduction import Reduction
from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.reductions.reduce import Reduced, Wishes, expert_info, reduce_sets
from coat.pipeline.shards.build_folder import sweep
from coat.pipeline.shards.parts import open_set
from coat.pipeline.shards.plan import listed
from coat.pipeline.shards.recipe import RECIPE_NAME, Missing
from coat.pipeline.shards.samples import span
from coat.pipeline.store.rows import OK, Row
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore

RECORDS = "building"  # a file by finished tar, until the index is there


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


def add_expert(
    path: str,
    store: str,
    expert: str,
    missing: Missing = "fail",
    workers: int = 0,
    ray_address: str | None = None,
    on_shard: Callable[[ShardInfo], None] = lambda info: None,
    wishes: Wishes | None = None,
) -> ShardIndex:
    """Write the targets of one more expert beside a shard set, and give the index of all.

    `missing`: fail or mask. `wishes`: how its targets are made smaller. InputError where the expert is in the set
    already, lacks targets that may not be missing, or heard other audio than the shards hold.
    """
    index = ShardIndex.read(storage.absolute(path))
    name, _, fingerprint = expert.partition("@")
    if name in index.experts:
        raise InputError(f"{path}: has targets of {name} already; a set has one of each expert")
    if missing == "skip":
        raise InputError("--missing skip: the samples of a set are fixed; use mask, or build the set anew")
    targets = TargetStore(store).target_set(name, fingerprint or None)
    reduced = reduce_sets({name: targets}, wishes or Wishes.parse()).get(name)
    build_sidecar(index, index.table(), name, targets, reduced, missing, workers, ray_address, on_shard)
    return ShardIndex.read(index.path)


def build_sidecar(
    index: ShardIndex,
    table: pa.Table,
    name: str,
    targets: TargetSet,
    reduced: Reduced | None,
    missing: Missing,
    workers: int,
    ray_address: str | None,
    on_shard: Callable[[ShardInfo], None] = lambda info: None,
) -> Sidecar:
    folder = storage.join(index.path, SIDECARS, name)
    jobs = list(side_jobs(index, table, name, targets, reduced.how if reduced else None, missing))
    known = {i: found for i, job in enumerate(jobs) if (found := read_record(folder, job)) is not None}
    fresh = [i for i in range(len(jobs)) if i not in known]
    results = run_ordered(build_side_tar, (jobs[i] for i in fresh), workers, ray_address)
    for i, built in zip(fresh, results, strict=True):
        storage.write_bytes(record_url(folder, jobs[i]), storage.to_json({"job": jobs[i].digest, **asdict(built)}))
        known[i] = built
        on_shard(built.info)
    tars = [known[i] for i in range(len(jobs))]
    side = Sidecar(
        path=folder,
        of=index.identity,
        expert=name,
        info=expert_info(targets, reduced, sum(t.info.samples for t in tars), sum(sum(t.frames) for t in tars)),
        shards=tuple(t.info for t in tars),
        samples_xxh3=write_samples_table(folder, side_table(name, tars)),
    )
    sweep(folder)
    origin = {"store": targets.url, "missing": missing}  # so that a tar can be built again
    storage.write_bytes(storage.join(folder, RECIPE_NAME), storage.to_json(origin))
    storage.write_bytes(storage.join(folder, INDEX_NAME), storage.to_json(side.to_dict()))
    for job in jobs:
        storage.remove(record_url(folder, job))
    storage.remove_if_empty(storage.join(folder, RECORDS))
    return side


def targets_of(side: Sidecar) -> TargetSet:
    """The target set that a sidecar was made of."""
    url = storage.join(side.path, RECIPE_NAME)
    try:
        return TargetSet.open(storage.read_json(url)["store"])
    except (FileNotFoundError, KeyError, TypeError) as e:
        raise InputError(f"{url}: no such file, or not what it should be; without it no tar can be built again") from e


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
    data = b"".join([*parts, END])
    info = ShardInfo(
        name=job.url.rsplit("/", 1)[-1],
        samples=len(parts),
        bytes=len(data),
        seconds=job.seconds,
        xxh3=xxhash.xxh3_128_hexdigest(data),
    )
    keys = tuple(key for key, *_ in job.samples)
    return data, SideBuilt(info, keys, tuple(map(len, parts)), tuple(frames))


def record_url(folder: str, job: SideJob) -> str:
    return storage.join(folder, RECORDS, job.url.rsplit("/", 1)[-1] + ".json")


def read_record(folder: str, job: SideJob) -> SideBuilt | None:
    """What an earlier run finished of this very job."""
    try:
        data: dict[str, Any] = storage.read_json(record_url(folder, job))
        fs, path = storage.filesystem(job.url)
        size = storage.request(job.url, lambda: fs.size(path))
    except FileNotFoundError:
        return None
    info = ShardInfo(**data["info"])
    if data["job"] != job.digest or size != info.bytes:
        return None
    return SideBuilt(info, tuple(data["keys"]), tuple(data["lengths"]), tuple(data["frames"]))


def side_table(name: str, tars: list[SideBuilt]) -> pa.Table:
    schema = samples_schema([name], SIDE_SAMPLES)
    lengths = [np.array(t.lengths, np.int64) for t in tars]
    columns = {
        "shard": np.repeat(np.arange(len(tars), dtype=np.int32), [len(n) for n in lengths]),
        "key": [key for t in tars for key in t.keys],
        "offset": np.concatenate([np.cumsum(n) - n for n in lengths]),
        "length": np.concatenate(lengths),
        f"frames.{name}": [n for t in tars for n in t.frames],
    }
    return pa.table(columns, schema=schema)
