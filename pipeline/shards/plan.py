"""Which samples a shard set has, in which order: columns over the manifests; a sample is an object when it is taken.

Everything here is a function of the recipe, the manifests and the store; nothing depends on workers. S samples,
M rows of a manifest, E experts.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance, safe_key
from coat.manifests.errors import InputError
from coat.pipeline.gathering.frames import Source
from coat.pipeline.gathering.pieces import cut_into_pieces, piece_grid_s
from coat.pipeline.gathering.places import TargetPlaces, find_places, on_disk
from coat.pipeline.shards.coverage import TargetCoverage
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.shards.row_filter import ManifestRow, row_filter
from coat.pipeline.store.rows import OK, Row
from coat.pipeline.store.target_set import TargetSet

pc: Any = pyarrow.compute

MAX_LISTED = 10  # ids in one message
AT_ONCE = 2**20  # samples whose columns are looked up together


@dataclass(frozen=True)
class PlannedSample:
    """One sample to be written, and where its targets lie, by expert."""

    key: str
    id: str
    utterance: Utterance
    rows: Mapping[str, Row]
    start: float = 0.0  # seconds into the utterance
    seconds: float | None = None  # of a piece of it; None: whole

    def identity(self, with_path: bool) -> bytes:
        """All that its bytes depend on but the recipe and the sound itself, whose digest is in `rows`.

        `with_path`: the path of the audio too, for shards that have paths in place of audio.
        """
        u = self.utterance
        rows = {n: (r.unit, r.first, r.frames, r.source) for n, r in self.rows.items()}
        data = (self.key, self.id, u.to_row(), rows, self.start, self.seconds, u.audio if with_path else "")
        return storage.to_json(data, indent=None)


@dataclass(frozen=True)
class ShardPlan:
    """All samples in order. `left_out`: how many utterances lack what the recipe asks for."""

    manifests: Sequence[Manifest]
    sets: Mapping[str, TargetSet]
    manifest_S: NDArray[np.int16]
    row_S: NDArray[np.int64]
    copy_S: NDArray[np.int16]
    repeats_id_S: NDArray[np.bool_]  # an earlier manifest has the same id
    start_S: NDArray[np.float64]
    seconds_S: NDArray[np.float64]  # of a piece; NaN: whole
    bytes_S: NDArray[np.int64]  # about
    places: Sequence[Mapping[str, TargetPlaces]]  # by manifest, then by name of the set
    unit_frames: Mapping[str, Mapping[str, int]]  # by name of the set, then by unit
    left_out: int

    def __len__(self) -> int:
        return len(self.row_S)

    def samples(self, first: int, stop: int) -> list[PlannedSample]:
        positions = range(first, stop)
        utterances: dict[int, Utterance] = {}
        for m, manifest in enumerate(self.manifests):
            of_manifest = [s for s in positions if self.manifest_S[s] == m]
            utterances |= zip(of_manifest, manifest.take(self.row_S[of_manifest]), strict=True)
        return [self.sample(s, utterances[s]) for s in positions]

    def sample(self, s: int, u: Utterance) -> PlannedSample:
        found = {name: p.row(int(self.row_S[s]), u) for name, p in self.places[self.manifest_S[s]].items()}
        rows = {name: row for name, row in found.items() if row is not None}
        start, seconds, copy = float(self.start_S[s]), float(self.seconds_S[s]), int(self.copy_S[s])
        is_whole = math.isnan(seconds)
        name = u.id + ("" if is_whole else f"@{start:.3f}") + (f"#{copy + 1}" if copy else "")
        key = safe_key(f"{name}|{u.digest}" if self.repeats_id_S[s] else name)
        return PlannedSample(key, name, u, rows, start, None if is_whole else seconds)

    def sources(self, samples: Iterable[PlannedSample]) -> dict[str, Source]:
        """Where the frames of these samples are."""
        units: dict[str, set[str]] = {name: set() for name in self.sets}
        for sample in samples:
            for name, row in sample.rows.items():
                units[name].add(row.unit)
        return {name: Source.of(targets, units[name], self.unit_frames[name]) for name, targets in self.sets.items()}

    def units_of(self, name: str, first: int, stop: int) -> NDArray[np.int32]:
        """Number of the unit in which each sample's frames of a set lie; -1 where it has none."""
        return self.place_column(name, range(first, stop), "unit_M", -1)

    def frames_of(self, name: str, first: int, stop: int) -> NDArray[np.int64]:
        return self.place_column(name, range(first, stop), "frames_M", 0)

    def spans_of(self, name: str, positions_N: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First frame in its unit, and frames, of samples that have some."""
        return self.place_column(name, positions_N, "first_M", 0), self.place_column(name, positions_N, "frames_M", 0)

    def place_column(self, name: str, positions: range | NDArray[np.int64], column: str, none: int) -> NDArray[Any]:
        """One of TargetPlaces' columns by sample; `none` where a sample has no frames of the set."""
        values_N = np.full(len(positions), none, getattr(self.places[0][name], column).dtype)
        for start in range(0, len(positions), AT_ONCE):
            part_N = np.asarray(positions[start : start + AT_ONCE])
            row_N, manifest_N = self.row_S[part_N], self.manifest_S[part_N]
            for m, places in enumerate(self.places):
                of = places[name]
                at = np.flatnonzero(manifest_N == m)
                at = at[(of.status_M[row_N[at]] == OK) & (of.frames_M[row_N[at]] > 0)]
                values_N[start + at] = getattr(of, column)[row_N[at]]
        return values_N

    def unit_names(self, name: str) -> Sequence[str]:
        """By their numbers in `units_of`."""
        return self.places[0][name].units

    def batches(self, nbytes: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """Runs of samples of about so many bytes, from sample `first` on; pieces of one utterance stay together."""
        start, total = first, 0
        for at in range(first, len(self), AT_ONCE):
            part = slice(at, at + AT_ONCE)
            sizes, starts_s = self.bytes_S[part].tolist(), self.start_S[part].tolist()
            for s, (size, start_s) in enumerate(zip(sizes, starts_s, strict=True), at):
                if s > start and not start_s > 0 and total + size > nbytes:  # a piece goes with the one before it
                    yield start, s
                    start, total = s, 0
                total += size
        if start < len(self):
            yield start, len(self)


def plan_shards(manifests: Sequence[Manifest], sets: Mapping[str, TargetSet], recipe: Recipe) -> ShardPlan:
    """InputError where there is nothing to write, or where the recipe lets nothing be missing and something is."""
    accepts = row_filter(recipe.filter) if recipe.filter else None
    rates = [*(t.spec.rate_hz for t in sets.values()), *recipe.reduced_rates]
    grid_s = piece_grid_s(rates, recipe.max_seconds) if recipe.max_seconds else 1.0
    columns: list[list[NDArray[Any]]] = [[] for _ in range(7)]
    left_out, reasons = 0, list[tuple[str, str]]()
    places, unit_frames = find_all_places(manifests, sets)
    seen_ids = np.array([], dtype=np.uint64)
    for m, manifest in enumerate(manifests):
        part = plan_manifest(m, TargetCoverage(manifest, sets, places[m]), recipe, accepts, grid_s, seen_ids)
        left_out += part.left_out
        reasons += part.reasons[: MAX_LISTED - len(reasons)]
        for column, values in zip(columns, part.columns, strict=True):
            column += values
        if m + 1 < len(manifests):
            seen_ids = np.union1d(seen_ids, manifest.id_digests)
        del part
    paths = ", ".join(m.path for m in manifests)
    if left_out and recipe.missing == "fail":
        raise InputError(
            f"{paths}: {left_out} of {sum(map(len, manifests))} utterances lack a target: "
            f"{list_reasons(reasons, left_out)}; extract them, or give --missing mask or --missing skip"
        )
    if not any(map(len, columns[0])):
        options = f"--missing {recipe.missing}" + (f" and --filter {recipe.filter!r}" if recipe.filter else "")
        raise InputError(f"{paths}: no utterance has all that {options} asks for; run `coat extract`")
    order = shuffled_order(np.concatenate(columns[4]), recipe.seed)
    ordered: list[NDArray[Any]] = []
    for column in columns:
        ordered.append(on_disk(np.concatenate(column)[order]))
        column.clear()
    return ShardPlan(manifests, sets, *ordered, places=places, unit_frames=unit_frames, left_out=left_out)


class ManifestPart(NamedTuple):
    """The samples of one manifest: columns of ShardPlan in their order, each in parts."""

    columns: list[list[NDArray[Any]]]
    left_out: int
    reasons: list[tuple[str, str]]  # of the first of those


def plan_manifest(
    m: int,
    coverage: TargetCoverage,
    recipe: Recipe,
    accepts: Callable[[ManifestRow], bool] | None,
    grid_s: float,
    seen_ids: NDArray[np.uint64],
) -> ManifestPart:
    """What is looked up for it is let go with it: at 50 million rows that is some gigabytes."""
    manifest = coverage.manifest
    columns: list[list[NDArray[Any]]] = [[] for _ in range(7)]
    kept_M = np.ones(len(manifest), bool)
    if accepts:
        durations = coverage.seconds_M.tolist()
        rows = ({**u.to_row(), "id": u.id, "duration": d} for u, d in zip(manifest, durations, strict=True))
        kept_M = np.fromiter((accepts(row) for row in rows), bool, len(manifest))
    missing_M = kept_M & coverage.missing_M(recipe.missing == "mask")
    reasons = list(coverage.reasons(np.flatnonzero(missing_M)[:MAX_LISTED]))
    rows_M = np.flatnonzero(kept_M & ~missing_M)
    repeats_id_M = np.isin(coverage.ids_M, seen_ids)
    weight = recipe.weights[m] if recipe.weights else 1.0
    for copy, chosen in enumerate(weighted_copies(rows_M, manifest.digests, weight)):
        utterance, start, seconds = cut_into_pieces(coverage.seconds_M[chosen], recipe.max_seconds, grid_s)
        row = chosen[utterance]
        share = np.where(np.isnan(seconds), 1.0, seconds / np.maximum(coverage.seconds_M[row], 1e-9))
        nbytes = (coverage.estimated_bytes_M(recipe)[row] * share).astype(np.int64)
        which = [np.full(len(row), m, np.int16), row, np.full(len(row), copy, np.int16), repeats_id_M[row]]
        for column, values in zip(columns, [*which, start, seconds, nbytes], strict=True):
            column.append(values)
    return ManifestPart(columns, int(missing_M.sum()), reasons)


def find_all_places(
    manifests: Sequence[Manifest], sets: Mapping[str, TargetSet]
) -> tuple[list[dict[str, TargetPlaces]], dict[str, dict[str, int]]]:
    """By manifest and name of the set; one set after the other, so that one is in memory."""
    places: list[dict[str, TargetPlaces]] = [{} for _ in manifests]
    unit_frames: dict[str, dict[str, int]] = {}
    for name, targets in sets.items():
        found, unit_frames[name] = find_places(targets, [m.digests for m in manifests])
        for of_manifest, of_set in zip(places, found, strict=True):
            of_manifest[name] = of_set
    return places, unit_frames


def weighted_copies(rows: NDArray[np.int64], digests: NDArray[np.uint64], weight: float) -> Iterator[NDArray[np.int64]]:
    """All rows for each whole of the weight, then for the rest of it a share of them, chosen by their digests."""
    whole = math.floor(weight)
    for _ in range(whole):
        yield rows
    if weight > whole:
        yield rows[(digests[rows] >> np.uint64(11)) / 2.0**53 < weight - whole]


def shuffled_order(start_S: NDArray[np.float64], seed: int | None) -> NDArray[np.int64]:
    """A seeded order of utterances, for a trainer reads tars in order and neighbours should be strangers; pieces of one
    stay together, so that it is decoded once.
    """
    if seed is None:
        return np.arange(len(start_S))
    utterance_S = np.cumsum(start_S == 0) - 1
    rank = np.random.default_rng(seed).permutation(int(utterance_S[-1]) + 1)
    return np.argsort(rank[utterance_S], kind="stable")


def list_reasons(items: Sequence[tuple[str, str]], count: int | None = None) -> str:
    """The first of some (id, reason), for a message; of `count`, where these are not all."""
    shown = "; ".join(f"{identity} ({reason})" for identity, reason in items[:MAX_LISTED])
    more = (len(items) if count is None else count) - MAX_LISTED
    return shown + (f"; and {more} more" if more > 0 else "")
