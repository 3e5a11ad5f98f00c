"""Sidecars: the targets of one expert in tars of their own, beside those of a set, which are not touched.

    OUT/sidecars/<expert>/shard-000000.tar   `<key>.<expert>.npy`, in the order of OUT/shard-000000.tar
    OUT/sidecars/<expert>/samples.parquet    shard, key, offset, length, frames
    OUT/sidecars/<expert>/index.json         written last; names the set that it was made for

Which audio an utterance had is known from the set's samples.parquet, so no audio is decoded.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.shards.index import INDEX_NAME, SIDECARS, ShardIndex, Sidecar
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.samples_table import SIDECAR_SAMPLE_SCHEMA, SamplesFile, SamplesWriter, samples_schema
from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.gathering.block_size import choose_block_bytes
from coat.pipeline.reductions.options import ReductionOptions
from coat.pipeline.reductions.reduce import FittedReduction, expert_info, fit_reductions
from coat.pipeline.shards.build_folder import remove_abandoned_files
from coat.pipeline.shards.recipe import RECIPE_NAME, Missing
from coat.pipeline.shards.sidecar_tars import (
    RECORDS,
    SidecarTar,
    grouped,
    record_url,
    sidecar_jobs,
    write_sidecar_tars,
)
from coat.pipeline.statistics.compute import on_workers
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore


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
    make_sums = on_workers(workers, ray_address)
    fitted = fit_reductions({name: targets}, reduction_options or ReductionOptions.parse(), make_sums).get(name)
    with index.open_samples() as samples:
        build_sidecar(index, samples, name, targets, fitted, missing, workers, ray_address, on_shard)
    return ShardIndex.read(index.path)


def build_sidecar(
    index: ShardIndex,
    samples: SamplesFile,
    name: str,
    targets: TargetSet,
    fitted: FittedReduction | None,
    missing: Missing,
    workers: int,
    ray_address: str | None,
    on_shard: Callable[[ShardInfo], None] = lambda info: None,
) -> Sidecar:
    """`samples`: samples.parquet of the set. What an earlier run finished is not made again.

    For tens of millions of samples: in memory are some 100 bytes each while their targets are looked for.
    """
    folder = storage.join(index.path, SIDECARS, name)
    jobs = sidecar_jobs(index, samples, name, targets, fitted.reduction if fitted else None, missing)
    tasks = grouped(jobs, targets, choose_block_bytes(int(targets.done.sum("bytes")), [targets], workers))
    infos: list[ShardInfo] = []
    frames = 0
    with SamplesWriter(samples_schema([name], SIDECAR_SAMPLE_SCHEMA)) as writer:
        for written in run_ordered(write_sidecar_tars, tasks, workers, ray_address):
            for tar, is_new in written:
                writer.add(sidecar_table(name, len(infos), tar))
                frames += sum(tar.frames)
                infos.append(tar.info)
                if is_new:
                    on_shard(tar.info)
        count = sum(info.samples for info in infos)
        sidecar = Sidecar(
            path=folder,
            of=index.identity,
            expert=name,
            info=expert_info(targets, fitted, count, frames, on_workers(workers, ray_address)),
            shards=tuple(infos),
            samples_xxh3=writer.finish(folder),
        )
    remove_abandoned_files(folder)
    origin = {"store": targets.url, "missing": missing}  # so that a tar can be built again
    storage.write_bytes(storage.join(folder, RECIPE_NAME), storage.to_json(origin))
    storage.write_bytes(storage.join(folder, INDEX_NAME), storage.to_json(sidecar.to_dict()))
    for info in infos:
        storage.remove(record_url(storage.join(folder, info.name)))
    storage.remove_if_empty(storage.join(folder, RECORDS))
    return sidecar


def source_target_set(sidecar: Sidecar) -> TargetSet:
    """The target set that a sidecar was made of."""
    url = storage.join(sidecar.path, RECIPE_NAME)
    try:
        return TargetSet.open(storage.read_json(url)["store"])
    except (FileNotFoundError, KeyError, TypeError) as e:
        raise InputError(f"{url}: no such file, or not what it should be; without it no tar can be built again") from e


def sidecar_table(name: str, number: int, tar: SidecarTar) -> pa.Table:
    """The rows of samples.parquet of one tar of a sidecar."""
    lengths = np.array(tar.lengths, np.int64)
    columns = {
        "shard": np.full(len(lengths), number, np.int32),
        "key": list(tar.keys),
        "offset": np.cumsum(lengths) - lengths,
        "length": lengths,
        f"frames.{name}": list(tar.frames),
    }
    return pa.table(columns, schema=samples_schema([name], SIDECAR_SAMPLE_SCHEMA))
