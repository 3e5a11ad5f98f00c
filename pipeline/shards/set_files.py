"""What lies beside the tars of a set: samples.parquet, sidecars, what Energon reads, recipe.json and index.json."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from coat.manifests.errors import InputError
from coat.manifests.shards.energon import INDEX_SUFFIX, write_meta
from coat.manifests.shards.index import ShardIndex
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.samples_table import SAMPLE_SCHEMA, SamplesWriter, samples_schema
from coat.pipeline.reductions.reduce import FittedReduction, expert_info
from coat.pipeline.shards.build_folder import BuildFolder, remove_leftovers
from coat.pipeline.shards.plan import ShardPlan, list_reasons
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.shards.sidecars import build_sidecar
from coat.pipeline.shards.writer import FinishedShard
from coat.pipeline.statistics.compute import on_workers
from coat.pipeline.store.target_set import TargetSet

pc: Any = pyarrow.compute


class FinishedTars:
    """All tars so far, and samples.parquet of them, of which some rows are in memory."""

    def __init__(self, experts: list[str]) -> None:
        self.experts = experts
        self.shards: list[ShardInfo] = []
        self.left_out: list[tuple[str, str]] = []
        self.samples: Counter[str] = Counter()  # with targets, by expert
        self.frames: Counter[str] = Counter()
        self.writer = SamplesWriter(samples_schema(experts))

    def __enter__(self) -> "FinishedTars":
        return self

    def __exit__(self, *where: object) -> None:
        self.writer.__exit__(*where)

    def add(self, shard: FinishedShard) -> None:
        self.left_out.extend(shard.left_out)
        if not shard.rows:
            return
        table = samples_table(len(self.shards), shard.rows, self.experts)
        for expert in self.experts:
            frames = table[f"frames.{expert}"]
            self.samples[expert] += len(frames) - frames.null_count
            self.frames[expert] += pc.sum(frames).as_py() or 0
        self.writer.add(table)
        self.shards.append(shard.info)


def write_set_files(
    plan: ShardPlan,
    recipe: Recipe,
    reductions: Mapping[str, FittedReduction],
    folder: BuildFolder,
    tars: FinishedTars,
    workers: int,
    ray_address: str | None,
) -> ShardIndex:
    """index.json last: it makes the set complete. InputError where samples failed that may not."""
    out = folder.out
    failed = tars.left_out
    if failed and (recipe.missing == "fail" or not tars.shards):
        raise InputError(
            f"{', '.join(recipe.manifests)}: {len(failed)} utterances cannot be written: {list_reasons(failed)}"
        )
    shards = tuple(tars.shards)
    experts = {}
    if recipe.layout == "joint":
        make_sums = on_workers(workers, ray_address)
        for name, targets in plan.sets.items():
            own = TargetSet(targets.url, targets.spec)  # what it reads of every unit is not kept for all sets
            experts[name] = expert_info(own, reductions.get(name), tars.samples[name], tars.frames[name], make_sums)
    index = ShardIndex(
        path=out,
        layout=recipe.layout,
        sample_rate=recipe.sample_rate,
        shards=shards,
        experts=experts,
        skipped=plan.left_out + len(failed),
        audio=recipe.audio,
        samples_xxh3=tars.writer.finish(out),
    )
    if recipe.layout == "sidecar":
        samples = tars.writer.samples()
        for name, targets in plan.sets.items():
            build_sidecar(index, samples, name, targets, reductions.get(name), recipe.missing, workers, ray_address)
    remove_leftovers(out, {s.name + end for s in shards for end in ("", INDEX_SUFFIX)}, index.identity)
    write_meta(out, shards)
    recipe.write(out)
    index.write(out)
    return index.with_sidecars()


def samples_table(number: int, rows: Sequence[dict[str, Any]], experts: list[str]) -> pa.Table:
    """The rows of samples.parquet of one shard."""
    columns: dict[str, list[Any]] = {"shard": [number] * len(rows)}
    columns |= {name: [row[name] for row in rows] for name in SAMPLE_SCHEMA.names if name != "shard"}
    columns |= {f"frames.{expert}": [row["frames"].get(expert) for row in rows] for expert in experts}
    return pa.table(columns, schema=samples_schema(experts))
