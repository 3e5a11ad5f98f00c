"""`coat verify SHARDS`: read a shard set back, and compare it with what its indices say.

Tars are read by the strict reader: links, paths, sizes that lie and arrays that would be unpickled are named, and
nothing of them is executed or written. N frames, D dim.
"""

import io
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.shards.energon import INDEX_SUFFIX, META_FOLDER, meta_files, sample_offsets
from coat.manifests.shards.index import INDEX_NAME, SIDECARS, ShardIndex
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.samples_table import SAMPLES_NAME, read_samples_table
from coat.manifests.shards.tar import TarSample, read_tar
from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.shard_checks.repair import ShardRepairer
from coat.pipeline.shard_checks.sample_checks import check_audio, check_record, check_targets
from coat.pipeline.shards.build_folder import BUILDING
from coat.pipeline.shards.recipe import RECIPE_NAME


@dataclass(frozen=True)
class ShardDamage:
    """One file that is wrong, by its path in the set."""

    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


@dataclass(frozen=True)
class VerifiedShards:
    """What was read, and what was wrong with it."""

    shards: int
    samples: int
    bytes: int
    damages: tuple[ShardDamage, ...]
    repaired: int = 0


def verify_shards(
    path: str,
    repair: bool = False,
    on_shard: Callable[[int], None] = lambda n: None,
    workers: int = 0,
    ray_address: str | None = None,
) -> VerifiedShards:
    """Check every tar: digest, members, lengths against spec, index and audio; and that nothing else lies there.

    `repair` builds damaged tars again from the recipe, where that gives the bytes that the index names. InputError
    where there is no set, or its index is broken.
    """
    index = ShardIndex.read(storage.absolute(path))
    damages: list[ShardDamage] = []
    checked = repaired = 0
    repairer = ShardRepairer(index) if repair else None
    run = uuid.uuid4().hex
    for tars in tar_sets(index):
        try:
            table = tars.table()
        except InputError as e:
            damages.append(ShardDamage(f"{tars.folder}{SAMPLES_NAME}", str(e)))
            table = None
        rows_by_shard = split_by_shard(table, len(tars.shards)) if table is not None else repeat(None)
        jobs = (
            TarCheck(index.path, run, tars.expert, shard, rows)
            for shard, rows in zip(tars.shards, rows_by_shard, strict=False)
        )
        for shard, rows, message in run_ordered(check_tar, jobs, workers, ray_address):
            checked += 1
            if message:
                if repairer and rows is not None:
                    outcome, is_whole = repairer.rebuild(tars.expert, shard, rows)
                    message, repaired = f"{message}; {outcome}", repaired + is_whole
                damages.append(ShardDamage(f"{tars.folder}{shard.name}", message))
            on_shard(1)
    for name, data in expected_files(index):
        if not has_content(storage.join(index.path, name), data):
            damages.append(ShardDamage(name, "is missing, or not what Megatron Energon needs for these tars"))
            if repair:
                storage.write_bytes(storage.join(index.path, name), data)
                repaired += 1
    damages += stray_files(index)
    return VerifiedShards(checked, index.samples, index.bytes, tuple(damages), repaired)


@dataclass(frozen=True)
class TarSet:
    """The tars of the set itself (`expert` None), or of a sidecar."""

    index: ShardIndex
    expert: str | None

    @property
    def folder(self) -> str:
        return f"{SIDECARS}/{self.expert}/" if self.expert else ""

    @property
    def path(self) -> str:
        return self.index.sidecars[self.expert].path if self.expert else self.index.path

    @property
    def shards(self) -> Sequence[ShardInfo]:
        return self.index.sidecars[self.expert].shards if self.expert else self.index.shards

    def table(self) -> pa.Table:
        """samples.parquet. InputError where it is not that of the index."""
        index = self.index.sidecars[self.expert] if self.expert else self.index
        return read_samples_table(self.path, index.samples_xxh3)

    def check(self, shard: ShardInfo, rows: Sequence[Mapping[str, Any]] | None) -> None:
        """InputError says what is wrong with one tar."""
        try:
            data = storage.read_bytes(storage.join(self.path, shard.name))
        except FileNotFoundError as e:
            raise InputError("no such file, but the index names it") from e
        samples = 0
        for sample in read_tar(io.BytesIO(data), len(data), shard.name):
            row = rows[samples] if rows is not None and samples < len(rows) else None
            self.check_sample(sample, row if row and row["key"] == sample.key else None)
            if rows is not None and (row is None or location(sample) != (row["key"], row["offset"], row["length"])):
                raise InputError(f"{sample.key} at byte {sample.offset} is not what {SAMPLES_NAME} has in this place")
            samples += 1
        if samples != shard.samples:
            raise InputError(f"{samples} samples, but the index says {shard.samples}")
        if len(data) != shard.bytes or xxhash.xxh3_128_hexdigest(data) != shard.xxh3:
            raise InputError(f"does not have the size and digest of {INDEX_NAME}; it was changed since it was written")

    def check_sample(self, sample: TarSample, row: Mapping[str, Any] | None) -> None:
        members = dict(sample.members)
        if self.expert:
            expected = {self.expert: row[f"frames.{self.expert}"] if row else None}
            check_targets(sample.key, members, {self.expert: self.index.experts[self.expert]}, expected, None)
        else:
            record = check_record(sample.key, members, row)
            check_audio(sample.key, members, record, self.index.audio)
            check_targets(sample.key, members, self.index.own, record["targets"], record["duration"])
            if row and {n: row[f"frames.{n}"] for n in self.index.own if row[f"frames.{n}"]} != record["targets"]:
                raise InputError(f"{sample.key}: its targets are not those that {SAMPLES_NAME} has")
        if members:
            raise InputError(f"{sample.key}: a stray member .{next(iter(members))}")


@dataclass(frozen=True)
class TarCheck:
    """One tar to be checked by any worker, which reads the index once in a run. `rows`: None where they are lost."""

    path: str
    run: str
    expert: str | None
    shard: ShardInfo
    rows: Sequence[Mapping[str, Any]] | None


def check_tar(job: TarCheck) -> tuple[ShardInfo, Sequence[Mapping[str, Any]] | None, str]:
    """What is wrong with it, if anything; its rows where they are needed to build it again."""
    try:
        TarSet(read_index(job.path, job.run), job.expert).check(job.shard, job.rows)
    except InputError as e:
        return job.shard, job.rows, str(e)
    return job.shard, None, ""


@lru_cache(maxsize=1)
def read_index(path: str, run: str) -> ShardIndex:
    return ShardIndex.read(path)


def tar_sets(index: ShardIndex) -> Iterator[TarSet]:
    yield TarSet(index, None)
    for expert in index.sidecars:
        yield TarSet(index, expert)


def split_by_shard(table: pa.Table, shards: int) -> Iterator[list[dict[str, Any]]]:
    ends = np.searchsorted(table["shard"].to_numpy(), np.arange(shards + 1))
    return (table.slice(first, stop - first).to_pylist() for first, stop in pairwise(ends))


def location(sample: TarSample) -> tuple[str, int, int]:
    return sample.key, sample.offset, sample.length


def expected_files(index: ShardIndex) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the files for Energon, which follow from the index. Sets without samples.parquet have none."""
    if not index.samples_xxh3:
        return
    yield from meta_files(index.shards).items()
    try:
        table = TarSet(index, None).table()
    except InputError:
        return  # already among the damages
    for shard, rows in zip(
        index.shards, split_by_shard(table.select(["shard", "length"]), len(index.shards)), strict=True
    ):
        yield shard.name + INDEX_SUFFIX, sample_offsets([row["length"] for row in rows])


def has_content(url: str, data: bytes) -> bool:
    try:
        return storage.read_bytes(url) == data
    except FileNotFoundError:
        return False


def stray_files(index: ShardIndex) -> Iterator[ShardDamage]:
    known = {s.name + end for s in index.shards for end in ("", INDEX_SUFFIX)}
    known |= {INDEX_NAME, SAMPLES_NAME, RECIPE_NAME, SIDECARS, META_FOLDER, BUILDING}
    for name in storage.list_names(index.path):
        if name not in known:
            yield ShardDamage(name, "is not of the set; remove it")
    for expert, side in index.sidecars.items():
        for name in storage.list_names(side.path):
            if name not in {*side.by_name, INDEX_NAME, SAMPLES_NAME, RECIPE_NAME, BUILDING}:
                yield ShardDamage(f"{SIDECARS}/{expert}/{name}", "is not of the sidecar; remove it")
