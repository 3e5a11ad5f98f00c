"""Which samples a shard set has, in which order: columns over the manifests; a Sample is made when it is taken.

Everything here is a function of the recipe, the manifests and the store; nothing depends on workers. S samples,
M rows of a manifest.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute
import xxhash
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance, safe_key
from coat.manifests.errors import InputError
from coat.pipeline.shards.coverage import Found
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.shards.row_filter import row_filter
from coat.pipeline.shards.segments import cut_grid, pieces
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet

pc: Any = pyarrow.compute

NAMED = 10  # ids in one message


@dataclass(frozen=True)
class Sample:
    """One sample to be written, and where its targets lie, by expert."""

    key: str
    id: str
    utterance: Utterance
    rows: Mapping[str, Row]
    start: float = 0.0  # seconds into the utterance
    seconds: float | None = None  # of a piece of it; None: whole

    def identity(self, paths: bool) -> bytes:
        """All that its bytes depend on but the recipe and the sound itself, which `rows` have by digest."""
        u = self.utterance
        rows = {n: (r.unit, r.first, r.frames, r.source) for n, r in self.rows.items()}
        data = (self.key, self.id, u.to_row(), rows, self.start, self.seconds, u.audio if paths else "")
        return storage.to_json(data, indent=None)


@dataclass(frozen=True)
class Plan:
    """All samples in order. `left_out`: (id, reason) of utterances that lack what the recipe asks for."""

    manifests: Sequence[Manifest]
    sets: Mapping[str, TargetSet]
    manifest_S: NDArray[np.int16]
    row_S: NDArray[np.int64]
    copy_S: NDArray[np.int16]
    shared_S: NDArray[np.bool_]  # its id stands in an earlier manifest too
    start_S: NDArray[np.float64]
    seconds_S: NDArray[np.float64]  # of a piece; NaN: whole
    bytes_S: NDArray[np.int64]  # about
    place_SE: NDArray[np.int64]  # in the rows of each target set; -1: none
    left_out: Sequence[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.row_S)

    def samples(self, first: int, stop: int) -> list[Sample]:
        wanted = range(first, stop)
        utterances: dict[int, Utterance] = {}
        for m, manifest in enumerate(self.manifests):
            mine = [s for s in wanted if self.manifest_S[s] == m]
            utterances |= zip(mine, manifest.take(self.row_S[mine]), strict=True)
        return [self.sample(s, utterances[s]) for s in wanted]

    def sample(self, s: int, u: Utterance) -> Sample:
        places = zip(self.sets.items(), self.place_SE[s].tolist(), strict=True)
        rows = {name: targets.rows.at(place) for (name, targets), place in places if place >= 0}
        start, seconds, copy = float(self.start_S[s]), float(self.seconds_S[s]), int(self.copy_S[s])
        whole = math.isnan(seconds)
        name = u.id + ("" if whole else f"@{start:.3f}") + (f"#{copy + 1}" if copy else "")
        key = safe_key(f"{name}|{u.digest}" if self.shared_S[s] else name)
        return Sample(key, name, u, rows, start, None if whole else seconds)

    def parts(self, size: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """Runs of samples of about so many bytes, from sample `first` on; pieces of one utterance stay together."""
        start, total = first, 0
        for s in range(first, len(self)):
            goes_on = s > start and self.start_S[s] > 0
            if s > start and not goes_on and total + self.bytes_S[s] > size:
                yield start, s
                start, total = s, 0
            total += int(self.bytes_S[s])
        if start < len(self):
            yield start, len(self)


def plan_shards(manifests: Sequence[Manifest], sets: Mapping[str, TargetSet], recipe: Recipe) -> Plan:
    """InputError where there is nothing to write, or where the recipe lets nothing be missing and something is."""
    accepts = row_filter(recipe.filter) if recipe.filter else None
    rates = [*(t.spec.rate_hz for t in sets.values()), *recipe.reduced_rates]
    grid_s = cut_grid(rates, recipe.max_seconds) if recipe.max_seconds else 1.0
    columns: list[tuple[NDArray[Any], ...]] = []
    left_out: list[tuple[str, str]] = []
    seen_ids = np.array([], dtype=np.uint64)
    for m, manifest in enumerate(manifests):
        found = Found(manifest, sets)
        kept_M = np.ones(len(manifest), bool)
        if accepts:
            durations = found.seconds_M.tolist()
            rows = ({**u.to_row(), "id": u.id, "duration": d} for u, d in zip(manifest, durations, strict=True))
            kept_M = np.fromiter((accepts(row) for row in rows), bool, len(manifest))
        lacks_M = kept_M & found.lacks(recipe.missing == "mask")
        left_out += found.reasons(np.flatnonzero(lacks_M))
        rows_M = np.flatnonzero(kept_M & ~lacks_M)
        shared_M = np.isin(found.ids_M, seen_ids)
        seen_ids = np.union1d(seen_ids, found.ids_M)
        weight = recipe.weights[m] if recipe.weights else 1.0
        for copy, taken in enumerate(weighted(rows_M, manifest.digests, weight)):
            of, start, seconds = pieces(found.seconds_M[taken], recipe.max_seconds, grid_s)
            row = taken[of]
            share = np.where(np.isnan(seconds), 1.0, seconds / np.maximum(found.seconds_M[row], 1e-9))
            nbytes = (found.bytes_M(sets, recipe)[row] * share).astype(np.int64)
            many = [np.full(len(row), m, np.int16), row, np.full(len(row), copy, np.int16), shared_M[row]]
            columns.append((*many, start, seconds, nbytes, found.place_ME[row]))
    paths = ", ".join(m.path for m in manifests)
    if left_out and recipe.missing == "fail":
        raise InputError(
            f"{paths}: {len(left_out)} of {sum(map(len, manifests))} utterances lack a target: {listed(left_out)}; "
            "extract them, or give --missing mask or --missing skip"
        )
    joined = [np.concatenate(c) for c in zip(*columns, strict=True)]
    if not len(joined[0]):
        chosen = f"--missing {recipe.missing}" + (f" and --filter {recipe.filter!r}" if recipe.filter else "")
        raise InputError(f"{paths}: no utterance has all that {chosen} asks for; run `coat extract`")
    order = shuffled(joined[4], recipe.seed)
    return Plan(manifests, sets, *(c[order] for c in joined), left_out=left_out)


def weighted(rows: NDArray[np.int64], digests: NDArray[np.uint64], weight: float) -> Iterator[NDArray[np.int64]]:
    """Rows once more for each whole of the weight, and those whose digest falls into the rest of it."""
    whole = math.floor(weight)
    for _ in range(whole):
        yield rows
    if weight > whole:
        yield rows[(digests[rows] >> np.uint64(11)) / 2.0**53 < weight - whole]


def shuffled(start_S: NDArray[np.float64], seed: int | None) -> NDArray[np.int64]:
    """A seeded order of utterances, for a trainer reads tars in order and neighbours should be strangers; pieces of one
    stay together, so that it is decoded once.
    """
    if seed is None:
        return np.arange(len(start_S))
    utterance_S = np.cumsum(start_S == 0) - 1
    rank = np.random.default_rng(seed).permutation(int(utterance_S[-1]) + 1)
    return np.argsort(rank[utterance_S], kind="stable")


def chain(before: xxhash.xxh3_128, sample: Sample, paths: bool) -> None:
    """Adds a sample to the digest of all before it."""
    before.update(sample.identity(paths))


def listed(items: Sequence[tuple[str, str]]) -> str:
    shown = "; ".join(f"{identity} ({reason})" for identity, reason in items[:NAMED])
    return shown + (f"; and {len(items) - NAMED} more" if len(items) > NAMED else "")
