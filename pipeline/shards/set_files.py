"""samples.parquet and index.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute

from coat.manifests.errors import InputError
from coat.manifests.shards.index import ShardIndex
from coat.manifests.shards.info import ExpertInfo, ShardInfo
from coat.manifests.shards.samples_table import SAMPLE_SCHEMA, samples_schema, write_samples_table
from coat.pipeline.reductions.reduce import Reduced, expert_info
from coat.pipeline.shards.build_folder import BuildFolder, remove_strays
from coat.pipeline.shards.energon import INDEX_SUFFIX, write_meta
from coat.pipeline.shards.plan import Plan, listed
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.shards.sidecars import build_sidecar
from coat.pipeline.shards.writer import Built
from coat.pipeline.store.target_set import TargetSet

pc: Any = pyarrow.compute


@dataclass(frozen=True)
class Finished:
    """All tars so far; rows are columns, for there may be millions."""

    shards: list[ShardInfo]
    tables: list[pa.Table]
    left_out: list[tuple[str, str]]

    def add(self, built: Built, experts: list[str]) -> None:
        self.left_out.extend(built.left_out)
        if built.rows:
            self.tables.append(rows_table(len(self.shards), built.rows, experts))
            self.shards.append(built.info)


def write_index(
    plan: Plan,
    recipe: Recipe,
    reduced: Mapping[str, Reduced],
    folder: BuildFolder,
    tars: Finished,
    workers: int,
    ray_address: str | None,
) -> ShardIndex:
    """All that tells of the tars; index.json last. InputError where samples failed that may not."""
    out = folder.out
    late = tars.left_out
    if late and (recipe.missing == "fail" or not tars.shards):
        raise InputError(f"{', '.join(recipe.manifests)}: {len(late)} utterances cannot be written: {listed(late)}")
    shards = tuple(tars.shards)
    joint = recipe.layout == "joint"
    table = pa.concat_tables(tars.tables).combine_chunks()
    index = ShardIndex(
        path=out,
        layout=recipe.layout,
        sample_rate=recipe.sample_rate,
        shards=shards,
        experts={n: joint_info(n, targets, reduced.get(n), table) for n, targets in plan.sets.items()} if joint else {},
        skipped=len(plan.left_out) + len(late),
        audio=recipe.audio,
        samples_xxh3=write_samples_table(out, table),
    )
    if not joint:
        for name, targets in plan.sets.items():
            build_sidecar(index, table, name, targets, reduced.get(name), recipe.missing, workers, ray_address)
    remove_strays(out, {s.name + end for s in shards for end in ("", INDEX_SUFFIX)}, index.identity)
    write_meta(out, shards)
    recipe.write(out)
    index.write(out)
    return index.with_sidecars()


def rows_table(number: int, rows: Sequence[dict[str, Any]], experts: list[str]) -> pa.Table:
    columns: dict[str, list[Any]] = {"shard": [number] * len(rows)}
    columns |= {name: [row[name] for row in rows] for name in SAMPLE_SCHEMA.names if name != "shard"}
    columns |= {f"frames.{expert}": [row["frames"].get(expert) for row in rows] for expert in experts}
    return pa.table(columns, schema=samples_schema(experts))


def joint_info(name: str, targets: TargetSet, reduced: Reduced | None, table: pa.Table) -> ExpertInfo:
    frames = table[f"frames.{name}"]
    return expert_info(targets, reduced, len(frames) - frames.null_count, pc.sum(frames).as_py() or 0)
