"""Sidecars: the targets of one expert in tars of their own, beside those of a set, which are not touched.

    OUT/sidecars/<expert>/shard-000000.tar   `<key>.<expert>.npy`, in the order of OUT/shard-000000.tar
    OUT/sidecars/<expert>/samples.parquet    shard, key, offset, length, frames
    OUT/sidecars/<expert>/index.json         written last; names the set that it was made for

Which audio an utterance had is known from the set's samples.parquet, so no audio is decoded.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.shards.index import INDEX_NAME, SIDECARS, ShardIndex, Sidecar
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.samples_table import SIDECAR_SAMPLE_SCHEMA, samples_schema, write_samples_table
from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.reductions.options import ReductionOptions
from coat.pipeline.reductions.reduce import FittedReduction, expert_info, fit_reductions
from coat.pipeline.shards.build_folder import remove_abandoned_files
from coat.pipeline.shards.recipe import RECIPE_NAME, Missing
from coat.pipeline.shards.sidecar_tars import SidecarJob, SidecarTar, sidecar_jobs, write_sidecar_tar
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore

RECORDS = "building"  # a file by finished tar, until the index is there


def add_expert(
    path: str,
    store: str,
    expert: str,
    missing: Missing = "fail",
    workers: int = 0,
    ray_address: str | None = None,
    on_shard: Callable[[ShardInfo], None] = lambda info: None,
    reduction_options: ReductionOptions | None = None,
) -> ShardIndex:
    """Write the targets of one more expert beside a shard set, and give the index of all.

    `missing`: fail or mask. `reduction_options`: how its targets are made smaller. InputError where the expert is in
    the set already, lacks targets that may not be missing, or heard other audio than the shards have.
    """
    index = ShardIndex.read(storage.absolute(path))
    name, _, fingerprint = expert.partition("@")
    if name in index.experts:
        raise InputError(f"{path}: has targets of {name} already; a set has one of each expert")
    if missing == "skip":
        raise InputError("--missing skip: the samples of a set are fixed; use mask, or build the set anew")
    targets = TargetStore(store).target_set(name, fingerprint or None)
    fitted = fit_reductions({name: targets}, reduction_options or ReductionOptions.parse()).get(name)
    build_sidecar(index, index.table(), name, targets, fitted, missing, workers, ray_address, on_shard)
    return ShardIndex.read(index.path)


def build_sidecar(
    index: ShardIndex,
    table: pa.Table,
    name: str,
    targets: TargetSet,
    fitted: FittedReduction | None,
    missing: Missing,
    workers: int,
    ray_address: str | None,
    on_shard: Callable[[ShardInfo], None] = lambda info: None,
) -> Sidecar:
    """`table`: samples.parquet of the set. What an earlier run finished is not made again."""
    folder = storage.join(index.path, SIDECARS, name)
    jobs = list(sidecar_jobs(index, table, name, targets, fitted.reduction if fitted else None, missing))
    finished = {i: tar for i, job in enumerate(jobs) if (tar := read_record(folder, job)) is not None}
    to_make = [i for i in range(len(jobs)) if i not in finished]
    results = run_ordered(write_sidecar_tar, (jobs[i] for i in to_make), workers, ray_address)
    for i, tar in zip(to_make, results, strict=True):
        storage.write_bytes(record_url(folder, jobs[i]), storage.to_json({"job": jobs[i].digest, **asdict(tar)}))
        finished[i] = tar
        on_shard(tar.info)
    tars = [finished[i] for i in range(len(jobs))]
    sidecar = Sidecar(
        path=folder,
        of=index.identity,
        expert=name,
        info=expert_info(targets, fitted, sum(t.info.samples for t in tars), sum(sum(t.frames) for t in tars)),
        shards=tuple(t.info for t in tars),
        samples_xxh3=write_samples_table(folder, sidecar_table(name, tars)),
    )
    remove_abandoned_files(folder)
    origin = {"store": targets.url, "missing": missing}  # so that a tar can be built again
    storage.write_bytes(storage.join(folder, RECIPE_NAME), storage.to_json(origin))
    storage.write_bytes(storage.join(folder, INDEX_NAME), storage.to_json(sidecar.to_dict()))
    for job in jobs:
        storage.remove(record_url(folder, job))
    storage.remove_if_empty(storage.join(folder, RECORDS))
    return sidecar


def source_target_set(sidecar: Sidecar) -> TargetSet:
    """The target set that a sidecar was made of."""
    url = storage.join(sidecar.path, RECIPE_NAME)
    try:
        return TargetSet.open(storage.read_json(url)["store"])
    except (FileNotFoundError, KeyError, TypeError) as e:
        raise InputError(f"{url}: no such file, or not what it should be; without it no tar can be built again") from e


def record_url(folder: str, job: SidecarJob) -> str:
    return storage.join(folder, RECORDS, job.url.rsplit("/", 1)[-1] + ".json")


def read_record(folder: str, job: SidecarJob) -> SidecarTar | None:
    """What an earlier run finished of this very job."""
    try:
        data: dict[str, Any] = storage.read_json(record_url(folder, job))
        size = storage.size(job.url)
    except FileNotFoundError:
        return None
    info = ShardInfo(**data["info"])
    if data["job"] != job.digest or size != info.bytes:
        return None
    return SidecarTar(info, tuple(data["keys"]), tuple(data["lengths"]), tuple(data["frames"]))


def sidecar_table(name: str, tars: list[SidecarTar]) -> pa.Table:
    """samples.parquet of a sidecar."""
    schema = samples_schema([name], SIDECAR_SAMPLE_SCHEMA)
    lengths = [np.array(t.lengths, np.int64) for t in tars]
    columns = {
        "shard": np.repeat(np.arange(len(tars), dtype=np.int32), [len(n) for n in lengths]),
        "key": [key for t in tars for key in t.keys],
        "offset": np.concatenate([np.cumsum(n) - n for n in lengths]),
        "length": np.concatenate(lengths),
        f"frames.{name}": [n for t in tars for n in t.frames],
    }
    return pa.table(columns, schema=schema)
