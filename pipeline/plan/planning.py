"""From a manifest to the units that are still to be extracted. All is done on columns, for millions of rows."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import probe
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.plan.row_identities import RowIdentities, identify_rows, is_among
from coat.pipeline.plan.unit_cuts import cut_units
from coat.pipeline.plan.units import Units

UNIT_BYTES = 128 * 2**20  # of targets: large enough for object stores, small enough for memory
UNIT_SECONDS = 1800.0  # of audio, for small targets: what a kill costs at most
SMALL_UNIT_SECONDS = 60.0  # a small corpus is cut finer, down to this, so that every worker has work
SMALL_UNITS = 32  # ... into about so many
NO_REDO: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Covered:
    """What a target set has of a manifest already."""

    spec: TargetSpec
    digests: Collection[str] | NDArray[np.uint64] = ()  # of rows that committed units hold
    redo: Mapping[str, str] = field(
        default_factory=dict
    )  # of rows that are extracted once more: the unit that holds their outcome so far
    attempts: Mapping[str, int] = field(
        default_factory=dict
    )  # of these units, counted; a row's next attempt is one more


@dataclass(frozen=True, eq=False)
class ExtractionPlan:
    """All units of a manifest that are not yet committed, longest rows last."""

    spec: TargetSpec
    units: Units
    digests: NDArray[np.uint64]  # of the rows that were chosen: of the whole manifest, where nothing was
    covered: int  # of these, by committed units
    seconds: float  # of audio in the units
    cuts: int  # of the plans that were made together; a unit has one of so many numbers

    @property
    def rows(self) -> int:
        """How many were chosen."""
        return len(self.digests)

    @property
    def bytes(self) -> int:
        """Of targets that the units will add, as predicted from their durations."""
        return round(self.seconds * self.spec.bytes_per_second())


def make_plan(
    utterances: Sequence[Utterance],
    spec: TargetSpec,
    covered: Collection[str] | NDArray[np.uint64] = (),
    redo: Mapping[str, str] = NO_REDO,
    unit_bytes: int = UNIT_BYTES,
    on_probed: Callable[[int], None] = lambda n: None,
    only: Collection[str] | None = None,
    limit: int | None = None,
    attempts: Mapping[str, int] = MappingProxyType({}),
) -> ExtractionPlan:
    """The plan of one expert: see `make_plans` and `Covered`."""
    (plan,) = make_plans(utterances, [Covered(spec, covered, redo, attempts)], unit_bytes, on_probed, only, limit)
    return plan


def make_plans(
    utterances: Sequence[Utterance],
    experts: Sequence[Covered],
    unit_bytes: int = UNIT_BYTES,
    on_probed: Callable[[int], None] = lambda n: None,
    only: Collection[str] | None = None,
    limit: int | None = None,
) -> list[ExtractionPlan]:
    """Plan what experts have still to do, cut alike: of each cut every expert has the rows that it lacks, as a unit.

    `only` (ids) and then `limit` (the first so many) choose rows; the others are left out of the units. A row that is
    extracted once more is in a unit with a name of its own.

    The limits of a unit come from the whole manifest (and the expert with most bytes a second) and the windows from its
    row numbers, both before rows are taken out; rows are sorted ascending and cut greedily. So taking out whole units
    leaves the cuts between the others where they were. What all experts have is taken out.
    """
    manifest = utterances if isinstance(utterances, Manifest) else Manifest(utterances)
    identities = identify_rows(manifest)
    seconds = row_seconds(manifest, identities, on_probed)
    unit_seconds = min(UNIT_SECONDS, max(SMALL_UNIT_SECONDS, seconds.sum() / SMALL_UNITS))
    unit_seconds = min(unit_seconds, unit_bytes / max(e.spec.bytes_per_second() for e in experts))
    chosen = choose_rows(manifest, only, limit) & manifest.with_audio
    digests = identities.digests
    done = [
        chosen & is_among(digests, to_integers(e.digests)) & ~is_among(digests, to_integers(e.redo)) for e in experts
    ]
    order, starts = cut_units(manifest, digests, seconds, chosen & ~np.logical_and.reduce(done), unit_seconds)
    plans: list[ExtractionPlan] = []
    for expert, done_already in zip(experts, done, strict=True):
        left = chosen & ~done_already
        units = Units(
            manifest, identities, seconds, expert.redo, *rows_of_cuts(order, starts, left), attempts=expert.attempts
        )
        covered, audio = int(done_already.sum()), float(seconds[left].sum())
        plans.append(ExtractionPlan(expert.spec, units, digests[chosen], covered, audio, len(starts)))
    return plans


def rows_of_cuts(
    order: NDArray[np.integer], starts: NDArray[np.int64], left: NDArray[np.bool_]
) -> tuple[NDArray[np.integer], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each cut the rows that are left, as a unit: their order, where units start and end, and of which cut they are.

    A cut of which nothing is left is no unit.
    """
    ends, kept = np.append(starts[1:], len(order)), left[order]
    if kept.all():  # as of one expert
        return order, starts, ends, np.arange(len(starts))
    before = np.concatenate([[0], np.cumsum(kept)])
    unit_starts, unit_ends = before[starts], before[ends]
    cuts = np.flatnonzero(unit_ends > unit_starts)
    return order[kept], unit_starts[cuts], unit_ends[cuts], cuts


def to_integers(digests: Iterable[str] | NDArray[np.uint64]) -> NDArray[np.uint64]:
    if isinstance(digests, np.ndarray):
        return digests
    return np.array([int(d, 16) for d in digests], np.uint64)


def choose_rows(manifest: Manifest, only: Collection[str] | None, limit: int | None) -> NDArray[np.bool_]:
    chosen = np.ones(len(manifest), bool)
    if only is not None:
        wanted = np.array([xxhash.xxh3_64_intdigest(i.encode()) for i in only], np.uint64)
        chosen = is_among(manifest.id_digests, wanted)
    if limit is not None:
        chosen &= np.cumsum(chosen) <= limit
    return chosen


def row_seconds(manifest: Manifest, identities: RowIdentities, on_probed: Callable[[int], None]) -> NDArray[np.float64]:
    """Stated durations; where a row states none, what the header of its file leaves after its offset."""
    seconds = manifest.durations.copy()
    seconds[list(identities.repeated)] = 0.0
    unknown = np.flatnonzero(np.isnan(seconds))
    if len(unknown):
        rows = manifest.take(unknown)
        lengths = {u.audio: 0.0 for u in rows}
        with ThreadPoolExecutor(16) as pool:
            for audio, length in zip(lengths, pool.map(header_seconds, lengths), strict=True):
                lengths[audio] = length
                on_probed(1)
        seconds[unknown] = [lengths[u.audio] - u.offset for u in rows]
    return np.maximum(seconds, 0.0)


def header_seconds(audio: str) -> float:
    try:
        return probe(audio).seconds
    except AudioError:
        return 0.0  # decoding will give the row its reason
