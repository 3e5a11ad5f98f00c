"""`coat build-shards`: audio, text and targets as WebDataset tars, and the index that says where each sample lies.

Equal inputs give equal bytes: the order is a seeded shuffle, tars are cut by the true sizes of their samples in that
order, times and owners in them are fixed. Workers encode blocks of samples and write whole tars; this process only
says which samples each tar has (`blocks.py`). A tar appears by a rename, then a record by which a rerun goes on behind
it; samples.parquet and index.json come last.
"""

from collections.abc import Callable, Iterator, Sequence

import xxhash

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError
from coat.manifests.shards.index import INDEX_NAME, ShardIndex
from coat.pipeline.cluster.pool import worker_pool
from coat.pipeline.gathering.scratch import ScratchFolder
from coat.pipeline.reductions.options import ReductionOptions
from coat.pipeline.reductions.reduce import fit_reductions
from coat.pipeline.shards.blocks import TarBuild
from coat.pipeline.shards.build_folder import BuildFolder, remove_set
from coat.pipeline.shards.plan import ShardPlan, plan_shards
from coat.pipeline.shards.recipe import SAMPLE_RATE, SHARD_BYTES, AudioForm, Layout, Missing, Recipe
from coat.pipeline.shards.samples import SampleSettings
from coat.pipeline.shards.set_files import FinishedTars, write_set_files
from coat.pipeline.shards.shuffling import FrameShuffle
from coat.pipeline.shards.writer import FinishedShard, read_finished_shards, write_error
from coat.pipeline.statistics.compute import on_workers
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore

SAMPLES_AT_ONCE = 4096  # of the plan, as objects

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
    on_shard: Callable[[FinishedShard], None] = lambda shard: None,
    *,
    layout: Layout = "joint",
    audio: AudioForm = "flac",
    sample_rate: int = SAMPLE_RATE,
    filter: str | None = None,
    weights: Sequence[float] = (),
    max_seconds: float | None = None,
    reduction_options: ReductionOptions | None = None,
    block_bytes: int | None = None,
    scratch: str | None = None,
    scratch_bytes: int | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> ShardIndex:
    """Write a shard set and give its index.

    `experts` are names, or `name@fingerprint` where the store has several. `missing` says what happens to
    an utterance that lacks a target: fail (InputError names them, nothing is written), mask (its sample
    goes without that target), skip (it is left out). `seed` None keeps the manifests' order. `weights`, one per
    manifest: 0.5 takes half of its rows, 2 each of them twice. `max_seconds` cuts what is longer.
    `reduction_options` say which targets are made smaller, and how. `block_bytes` are gathered and encoded at once by
    each worker; `scratch` and `scratch_bytes` say where frames are shuffled, and how many at once (see shuffling.py).
    The bytes of the set depend on none of these. `on_note` is told how frames are read, where that is worth a word.
    """
    manifests = [manifest] if isinstance(manifest, Manifest | str) else list(manifest)
    sets = open_target_sets(store, experts)
    reductions = fit_reductions(sets, reduction_options or ReductionOptions.parse(), on_workers(workers, ray_address))
    recipe = Recipe(
        manifests=tuple(storage.absolute(m.path if isinstance(m, Manifest) else m) for m in manifests),
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
        reductions={name: fitted.reduction.digest for name, fitted in reductions.items()},
        reduced_rates=tuple(sorted({fitted.reduction.rate.rate_hz for fitted in reductions.values()})),
    )
    out = storage.absolute(out)
    if storage.exists(storage.join(out, INDEX_NAME)) and not overwrite:
        raise InputError(f"{out}: holds a shard set already; give another --out, or --overwrite")
    opened = [m if isinstance(m, Manifest) else Manifest.read(m, on_disk=True) for m in manifests]
    plan = plan_shards(opened, sets, recipe)
    folder = BuildFolder(out, recipe)
    is_finished = False
    try:
        if overwrite:
            remove_set(out)
        on_planned(len(plan))
        with FinishedTars(list(sets) if layout == "joint" else []) as tars:
            position, digest = 0, xxhash.xxh3_128()
            for shard, digest in reusable_shards(plan, recipe, folder):  # noqa: B007  the last digest is needed below
                position = shard.next
                tars.add(shard)
                on_shard(shard)
            settings = SampleSettings(recipe, {name: fitted.reduction for name, fitted in reductions.items()})
            with ScratchFolder(scratch) as scratch_folder, worker_pool(workers, ray_address) as pool:
                at_once = max(workers, bool(ray_address))
                shuffle = FrameShuffle(plan, layout, pool, at_once, scratch_folder, scratch_bytes, on_note)
                written = TarBuild(plan, settings, folder, pool, block_bytes, at_once, shuffle)
                for shard in written.tars(position, digest, len(tars.shards)):
                    tars.add(shard)
                    on_shard(shard)
            index = write_set_files(plan, recipe, reductions, folder, tars, workers, ray_address)
        is_finished = True
    except OSError as e:
        raise write_error(out, e) from e
    finally:
        folder.release(is_finished)
    return index


def reusable_shards(
    plan: ShardPlan, recipe: Recipe, folder: BuildFolder
) -> Iterator[tuple[FinishedShard, xxhash.xxh3_128]]:
    """Tars of an earlier build whose samples are still the plan's, each with the digest of all samples to its end."""
    position, digest = 0, xxhash.xxh3_128()
    for shard in read_finished_shards(folder):
        digest = digest.copy()
        for first in range(position, min(shard.next, len(plan)), SAMPLES_AT_ONCE):
            for sample in plan.samples(first, min(first + SAMPLES_AT_ONCE, shard.next)):
                digest.update(sample.identity(recipe.has_paths))
        if shard.next > len(plan) or digest.hexdigest() != shard.chain:
            return  # the manifest or the store changed since
        if shard.left_out and recipe.missing == "fail":
            return  # what failed is tried again
        position = shard.next
        yield shard, digest


def open_target_sets(store: str, experts: Sequence[str]) -> dict[str, TargetSet]:
    """By name. InputError where the store lacks one."""
    sets: dict[str, TargetSet] = {}
    for expert in dict.fromkeys(experts):
        name, _, fingerprint = expert.partition("@")
        if name in sets:
            raise InputError(f"--experts: {name} stands twice")
        sets[name] = TargetStore(store).target_set(name, fingerprint or None)
    if not sets:
        raise InputError("--experts: expected at least one, as pitch,whisper")
    return sets
