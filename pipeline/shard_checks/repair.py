"""Building single tars again, from the recipe that lies beside them."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import xxhash

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError, RunError
from coat.manifests.shards.index import ShardIndex
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.tar import TAR_END
from coat.pipeline.shards.build import open_sets
from coat.pipeline.shards.encoding import make_piece
from coat.pipeline.shards.plan import Plan, plan_shards
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.shards.samples import How
from coat.pipeline.shards.sidecar_tars import side_jobs, side_tar
from coat.pipeline.shards.sidecars import targets_of

CHUNK = 4096  # samples whose keys are looked at at once


class Repair:
    """Tars are replaced only by the very bytes that the index names."""

    def __init__(self, index: ShardIndex) -> None:
        self.index = index

    def tar(self, expert: str | None, shard: ShardInfo, rows: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
        """What to say of a damaged tar, and whether it is mended."""
        try:
            data = self.side_bytes(expert, shard) if expert else self.own_bytes(rows)
        except (InputError, RunError) as e:
            return f"it cannot be built again: {e}", False
        if xxhash.xxh3_128_hexdigest(data) != shard.xxh3:
            changed = "the manifest, the store or the audio changed since; build the set anew with --overwrite"
            return f"it cannot be built again: {changed}", False
        folder = self.index.sidecars[expert].path if expert else self.index.path
        storage.write_bytes(storage.join(folder, shard.name), data)
        return "built again", True

    def own_bytes(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        recipe, plan = self.recipe, self.plan
        how = How(recipe, {name: e.reduction for name, e in self.index.own.items() if e.reduction})
        parts = []
        for row in rows:
            position = self.positions.get(row["key"])
            if position is None:
                raise InputError(f"its manifests and store have no {row['key']} any more")
            (sample,) = plan.samples(position, position + 1)
            piece = make_piece(sample, plan.sets, how)
            if isinstance(piece, str):
                raise InputError(f"{row['key']}: {piece}")
            parts.append(piece.data)
        return b"".join([*parts, TAR_END])

    def side_bytes(self, expert: str, shard: ShardInfo) -> bytes:
        index, side = self.index, self.index.sidecars[expert]
        jobs = side_jobs(index, self.index.table(), expert, targets_of(side), side.info.reduction, "mask")
        job = next(job for job in jobs if job.url.endswith(f"/{shard.name}"))
        return side_tar(job)[0]

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.read(self.index.path)

    @cached_property
    def plan(self) -> Plan:
        manifests = [Manifest.read(path) for path in self.recipe.manifests]
        return plan_shards(manifests, open_sets(self.recipe.store, self.recipe.experts), self.recipe)

    @cached_property
    def positions(self) -> dict[str, int]:
        """In the plan, by key."""
        found: dict[str, int] = {}
        for first in range(0, len(self.plan), CHUNK):
            stop = min(first + CHUNK, len(self.plan))
            found |= {sample.key: first + i for i, sample in enumerate(self.plan.samples(first, stop))}
        return found
