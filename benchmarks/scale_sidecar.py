"""A shard set of millions of samples without its tars, and `coat shards add-expert` on it, for scale_shards.py.

No frames are there, as scale_store.py makes none: in place of a tar's writer stands one that gives the keys, lengths
and frames that it would write. Everything else, which is all that is held for a whole set, is the command itself.
"""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.scale import EXPERT
from benchmarks.scale_store import read_spans
from coat.manifests.corpus.digests import to_hex
from coat.manifests.shards.index import ShardIndex
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.samples_table import SamplesWriter, samples_schema
from coat.pipeline.reductions.evaluation_sample import rows_by_digest
from coat.pipeline.shards import sidecars
from coat.pipeline.shards.sidecar_tars import SidecarTar, SidecarTask
from coat.pipeline.statistics.saved_statistics import save_statistics
from coat.pipeline.statistics.statistics import QUANTILES, Statistics
from coat.pipeline.statistics.sums import Sums
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore

SHARD_SAMPLES = 1000
AT_ONCE = 100_000
EVALUATED = 200  # utterances, as many as 8 million values of `mel` are


def write_shard_set(place: Path, out: Path) -> None:
    """All rows of the manifest, shuffled, and the index; the sounds are those of scale_store.py."""
    manifest = read_spans(place)
    order = np.random.default_rng(0).permutation(len(manifest))
    durations, digests = manifest.durations, manifest.digests
    with SamplesWriter(samples_schema([])) as writer:
        for first in range(0, len(order), AT_ONCE):
            rows = order[first : first + AT_ONCE]
            ids, digest, n = (
                manifest.table["id"].take(pa.array(rows)).cast(pa.string()),
                to_hex(digests[rows]),
                len(rows),
            )
            columns = {
                "shard": (np.arange(first, first + n) // SHARD_SAMPLES).astype(np.int32),
                "key": ids,
                "id": ids,
                "digest": digest,
                "source": digest,
                "offset": np.arange(first, first + n) % SHARD_SAMPLES * 100_000,
                "length": np.full(n, 100_000),
                "duration": durations[rows],
                "start": np.zeros(n),
                "whole": np.ones(n, bool),
                "characters": np.full(n, 200, np.int32),
            }
            writer.add(pa.table(columns, schema=samples_schema([])))
        digest_of_all = writer.finish(str(out))
    shards = tuple(
        ShardInfo(name=f"shard-{i:06d}.tar", samples=SHARD_SAMPLES, bytes=10**8, seconds=6e3, xxh3=f"{i:032x}")
        for i in range(-(-len(order) // SHARD_SAMPLES))
    )
    index = ShardIndex(
        path=str(out), layout="sidecar", sample_rate=16000, shards=shards, experts={}, samples_xxh3=digest_of_all
    )
    index.write(str(out))


def save_some_statistics(targets: TargetSet) -> None:
    """As if all frames had been read."""
    frames_ND = np.random.default_rng(0).normal(size=(100, targets.spec.dim))
    sums = Sums.of(frames_ND, targets.spec.kind, covariance=False)
    quantiles_QD = np.zeros((len(QUANTILES), targets.spec.dim))
    save_statistics(targets, Statistics(targets.spec, len(targets.done), 1.0, sums, quantiles_QD, exact=False))


def tars_without_frames(task: SidecarTask) -> list[tuple[SidecarTar, bool]]:
    """What `write_sidecar_tars` gives."""
    found: list[tuple[SidecarTar, bool]] = []
    for job in task.jobs:
        frames = tuple(row.frames for _, row, _, _ in job.samples)
        keys, name = tuple(key for key, *_ in job.samples), job.url.rsplit("/", 1)[-1]
        info = ShardInfo(name=name, samples=len(keys), bytes=10**6, seconds=job.seconds, xxh3="0" * 32)
        found.append((SidecarTar(info, keys, (20_480,) * len(keys), frames), True))
    return found


def add_expert(place: Path) -> dict[str, Any]:
    store = str(place / "store")
    targets = TargetStore(store).target_set(EXPERT)
    evaluated = len(list(islice(rows_by_digest(TargetSet(targets.url, targets.spec)), EVALUATED)))
    sidecars.write_sidecar_tars = tars_without_frames  # pyright: ignore
    index = sidecars.add_expert(str(place / "shards"), store, EXPERT, missing="mask")
    return {"samples": index.samples, "with_targets": index.experts[EXPERT].samples, "evaluated": evaluated}
