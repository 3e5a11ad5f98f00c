"""`coat build-shards`: audio, text and targets as WebDataset tars, and what tells where each sample lies.

Equal inputs give equal bytes: the order is a seeded shuffle, tars are cut by the true sizes of their samples in that
order, times and owners in them are fixed. Workers make samples; this process alone writes, in order. A tar appears by
a rename, with a record by which a rerun goes on behind it; samples.parquet and index.json come last.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow.compute
import xxhash

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError
from coat.manifests.shards.index import (
    INDEX_NAME,
    ShardIndex,
)
from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.reductions.options import Wishes
from coat.pipeline.reductions.reduce import Reduced, reduce_sets
from coat.pipeline.shards.build_folder import BuildFolder, remove_set
from coat.pipeline.shards.encoding import PART_BYTES, PartJob, make_part
from coat.pipeline.shards.plan import Plan, Sample, chain, plan_shards
from coat.pipeline.shards.recipe import SAMPLE_RATE, SHARD_BYTES, AudioForm, Layout, Missing, Recipe
from coat.pipeline.shards.samples import How
from coat.pipeline.shards.set_files import Finished, write_index
from coat.pipeline.shards.writer import Built, ShardWriter, finished, writing
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore

pc: Any = pyarrow.compute

Manifests = Manifest | str | Sequence[Manifest | str]


def build_shards(
    manifest: Manifests,
    store: str,
    experts: Sequence[str],
    out: str,
    shard_size: int = SHARD_BYTES,
    missing: Missing = "fail",
    seed: int | None = 0,
    workers: int = 0,
    ray_address: str | None = None,
    overwrite: bool = False,
    on_planned: Callable[[int], None] = lambda samples: None,
    on_shard: Callable[[Built], None] = lambda built: None,
    *,
    layout: Layout = "joint",
    audio: AudioForm = "flac",
    sample_rate: int = SAMPLE_RATE,
    filter: str | None = None,
    weights: Sequence[float] = (),
    max_seconds: float | None = None,
    wishes: Wishes | None = None,
) -> ShardIndex:
    """Write a shard set and give its index.

    `experts` are names, or `name@fingerprint` where the store has several. `missing` says what happens to
    an utterance that lacks a target: fail (InputError names them, nothing is written), mask (its sample
    goes without that target), skip (it is left out). `seed` None keeps the manifests' order. `weights`, one per
    manifest: 0.5 takes half of its rows, 2 each of them twice. `max_seconds` cuts what is longer.
    `wishes` say which targets are made smaller, and how.
    """
    given = [manifest] if isinstance(manifest, Manifest | str) else list(manifest)
    sets = open_sets(store, experts)
    reduced = reduce_sets(sets, wishes or Wishes.parse())
    recipe = Recipe(
        manifests=tuple(storage.absolute(m.path if isinstance(m, Manifest) else m) for m in given),
        store=TargetStore(store).url,
        experts=tuple(f"{name}@{targets.spec.fingerprint}" for name, targets in sets.items()),
        weights=tuple(float(w) for w in weights),
        layout=layout,
        audio=audio,
        sample_rate=sample_rate,
        shard_size=shard_size,
        missing=missing,
        seed=seed,
        filter=filter,
        max_seconds=max_seconds,
        reductions={name: r.how.digest for name, r in reduced.items()},
        reduced_rates=tuple(sorted({r.how.rate.rate_hz for r in reduced.values()})),
    )
    out = storage.absolute(out)
    if storage.exists(storage.join(out, INDEX_NAME)) and not overwrite:
        raise InputError(f"{out}: holds a shard set already; give another --out, or --overwrite")
    opened = [m if isinstance(m, Manifest) else Manifest.read(m) for m in given]
    plan = plan_shards(opened, sets, recipe)
    folder = BuildFolder(out, recipe)
    is_finished = False
    try:
        if overwrite:
            remove_set(out)
        on_planned(len(plan))
        tars = Finished([], [], [])
        for built in write_shards(plan, recipe, reduced, folder, workers, ray_address, on_shard):
            tars.add(built, list(sets) if layout == "joint" else [])
        index = write_index(plan, recipe, reduced, folder, tars, workers, ray_address)
        is_finished = True
    except OSError as e:
        raise writing(out, e) from e
    finally:
        folder.leave(is_finished)
    return index


def write_shards(
    plan: Plan,
    recipe: Recipe,
    reduced: Mapping[str, Reduced],
    folder: BuildFolder,
    workers: int,
    ray_address: str | None,
    on_shard: Callable[[Built], None],
) -> Iterator[Built]:
    """All tars in order; those that an earlier build finished, and whose samples are still the plan's, as they are."""
    position, digest, number = 0, xxhash.xxh3_128(), 0
    paths = recipe.audio == "none"  # then they stand in the tars
    for built in finished(folder):
        ahead = digest.copy()
        for part in range(position, min(built.next, len(plan)), 4096):
            for sample in plan.samples(part, min(part + 4096, built.next)):
                chain(ahead, sample, paths)
        if built.next > len(plan) or ahead.hexdigest() != built.chain:
            break  # the manifest or the store changed since
        if built.left_out and recipe.missing == "fail":
            break  # what failed is tried again
        position, digest, number = built.next, ahead, number + 1
        yield built
        on_shard(built)
    set_urls = {name: targets.url for name, targets in plan.sets.items()}
    how = How(recipe, {name: r.how for name, r in reduced.items()})
    spans = list(plan.parts(min(PART_BYTES, recipe.shard_size), position))
    sent: deque[tuple[Sample, ...]] = deque()

    def jobs() -> Iterator[PartJob]:
        for span in spans:  # made when they are sent: millions of samples are columns until then
            sent.append(tuple(plan.samples(*span)))
            yield PartJob(set_urls, sent[-1], how)

    with ShardWriter(folder, recipe.shard_size, number, on_shard) as writer:
        for (first, _), part in zip(spans, run_ordered(make_part, jobs(), workers, ray_address), strict=True):
            for s, (sample, made) in enumerate(zip(sent.popleft(), part.pieces, strict=True), start=first):
                writer.add(made, sample.id, s, digest.hexdigest())
                chain(digest, sample, paths)
            yield from writer.built
            writer.built.clear()
        writer.finish(len(plan), digest.hexdigest())
        yield from writer.built


def open_sets(store: str, experts: Sequence[str]) -> dict[str, TargetSet]:
    sets: dict[str, TargetSet] = {}
    for wanted in dict.fromkeys(experts):
        name, _, fingerprint = wanted.partition("@")
        if name in sets:
            raise InputError(f"--experts: {name} stands twice")
        sets[name] = TargetStore(store).target_set(name, fingerprint or None)
    if not sets:
        raise InputError("--experts: expected at least one, as pitch,whisper")
    return sets
