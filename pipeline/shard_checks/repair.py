"""Damaged tars are built again, from the recipe that lies beside them."""

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
from coat.pipeline.shards.build import open_target_sets
from coat.pipeline.shards.encoding import encode_samples
from coat.pipeline.shards.plan import PlannedSample, ShardPlan, plan_shards
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.shards.samples import SampleSettings
from coat.pipeline.shards.sidecar_tars import sidecar_bytes, sidecar_jobs
from coat.pipeline.shards.sidecars import source_target_set

SAMPLES_AT_ONCE = 4096  # of the plan, as objects


class ShardRepairer:
    """Replaces a tar only by bytes that have the digest of the index."""

    def __init__(self, index: ShardIndex) -> None:
        self.index = index

    def rebuild(self, expert: str | None, shard: ShardInfo, rows: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
        """Of a damaged tar, of the set or of a sidecar: what came of it, in words, and whether it is whole again."""
        try:
            data = self.sidecar_bytes(expert, shard) if expert else self.set_bytes(rows)
        except (InputError, RunError) as e:
            return f"it cannot be built again: {e}", False
        if xxhash.xxh3_128_hexdigest(data) != shard.xxh3:
            changed = "the manifest, the store or the audio changed since; build the set anew with --overwrite"
            return f"it cannot be built again: {changed}", False
        folder = self.index.sidecars[expert].path if expert else self.index.path
        storage.write_bytes(storage.join(folder, shard.name), data)
        return "built again", True

    def set_bytes(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        recipe, plan = self.recipe, self.plan
        settings = SampleSettings(recipe, {name: e.reduction for name, e in self.index.own.items() if e.reduction})
        samples: list[PlannedSample] = []
        for row in rows:
            position = self.positions.get(row["key"])
            if position is None:
                raise InputError(f"its manifests and store have no {row['key']} any more")
            samples += plan.samples(position, position + 1)
        encoded_samples = list(encode_samples(samples, plan.sources(samples), settings))
        for sample, encoded in zip(samples, encoded_samples, strict=True):
            if isinstance(encoded, str):
                raise InputError(f"{sample.key}: {encoded}")
        return b"".join([*(e.data for e in encoded_samples if not isinstance(e, str)), TAR_END])

    def sidecar_bytes(self, expert: str, shard: ShardInfo) -> bytes:
        index, sidecar = self.index, self.index.sidecars[expert]
        targets = source_target_set(sidecar)
        with index.open_samples() as samples:
            jobs = sidecar_jobs(index, samples, expert, targets, sidecar.info.reduction, "mask")
            job = next(job for job in jobs if job.url.endswith(f"/{shard.name}"))
        return sidecar_bytes(job, targets)

    @cached_property
    def recipe(self) -> Recipe:
        return Recipe.read(self.index.path)

    @cached_property
    def plan(self) -> ShardPlan:
        manifests = [Manifest.read(path) for path in self.recipe.manifests]
        return plan_shards(manifests, open_target_sets(self.recipe.store, self.recipe.experts), self.recipe)

    @cached_property
    def positions(self) -> dict[str, int]:
        """In the plan, by key."""
        positions: dict[str, int] = {}
        for first in range(0, len(self.plan), SAMPLES_AT_ONCE):
            stop = min(first + SAMPLES_AT_ONCE, len(self.plan))
            positions |= {sample.key: first + i for i, sample in enumerate(self.plan.samples(first, stop))}
        return positions
