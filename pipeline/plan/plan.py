"""From a manifest to units of work.

A unit is what one worker does at a time and what is committed at once. Units are cut so that the same
manifest gives the same units whatever is already done: a run that was killed goes on with the very
units (and so the very batches, and bytes) that an undisturbed run would have made.

Everything is done on columns; rows become objects when a unit is taken.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import overload

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from coat.manifests.audio.decoding import AudioError, probe
from coat.manifests.corpus.digests import hashes
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.targets.spec import TargetSpec

UNIT_BYTES = 128 * 2**20  # of targets: large enough for object stores, small enough for memory
UNIT_SECONDS = 1800.0  # of audio, for small targets: what a kill costs at most
UNIT_ROWS = 4096
SMALL_UNIT_SECONDS = 60.0  # a small corpus is cut finer, down to this, so that every worker has work
SMALL_UNITS = 32  # ... into about so many
WINDOW_ROWS = 200_000  # rows that are sorted together: padding is small long before the whole corpus is

NONE_AGAIN: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """An utterance as it is to be extracted. `fault`: it fails without being heard, for this reason."""

    utterance: Utterance
    digest: str
    seconds: float  # stated or probed; 0 where neither worked, so that decoding can say why
    fault: str | None = None
    again: str = ""  # the unit that holds what became of it before, where it is to be tried again


@dataclass(frozen=True)
class Unit:
    """Rows in ascending length. The name is a digest of them: equal work has an equal name everywhere."""

    rows: tuple[PlannedRow, ...]

    @property
    def name(self) -> str:
        return unit_name(r.digest + r.again for r in self.rows)

    @property
    def seconds(self) -> float:
        return sum(r.seconds for r in self.rows)

    def halves(self) -> tuple["Unit", "Unit"]:
        """For a unit that kills its worker: the poisonous row is in one of them."""
        middle = len(self.rows) // 2
        return Unit(self.rows[:middle]), Unit(self.rows[middle:])


def unit_name(rows: Iterable[str]) -> str:
    return "u-" + xxhash.xxh3_64_hexdigest("\n".join(rows).encode())


@dataclass(frozen=True)
class Identities:
    """Who the rows of a manifest are: a digest each. Of equal ids the first counts, the others are at fault."""

    digests: NDArray[np.uint64]
    repeated: Mapping[int, int]  # position of a row: line of the first row that has its id


@dataclass(frozen=True, eq=False)
class Units(Sequence[Unit]):
    """Units that are made when they are taken. A slice is one too, and costs nothing."""

    manifest: Manifest
    identities: Identities
    seconds: NDArray[np.float64]  # of every row of the manifest
    again: Mapping[str, str]
    order: NDArray[np.integer]  # rows of the manifest, unit after unit
    starts: NDArray[np.int64]  # in `order`, of each unit
    ends: NDArray[np.int64]

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> "Units": ...
    def __getitem__(self, index: int | slice) -> "Unit | Units":
        if isinstance(index, slice):
            cut = self.starts[index], self.ends[index]
            return Units(self.manifest, self.identities, self.seconds, self.again, self.order, *cut)
        rows = self.order[self.starts[index] : self.ends[index]]
        utterances = self.manifest.take(rows)
        return Unit(tuple(self.planned(int(i), u) for i, u in zip(rows, utterances, strict=True)))

    def planned(self, row: int, utterance: Utterance) -> PlannedRow:
        digest, first = f"{self.identities.digests[row]:016x}", self.identities.repeated.get(row)
        fault = None
        if first is not None:
            fault = f"duplicate_id: row {utterance.row} repeats the id of row {first}"
        return PlannedRow(utterance, digest, float(self.seconds[row]), fault, self.again.get(digest, ""))

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, eq=False)
class Plan:
    """All units of a manifest that are not yet committed, longest rows last."""

    spec: TargetSpec
    units: Units
    digests: NDArray[np.uint64]  # of the rows that were chosen: of the whole manifest, where nothing was
    covered: int  # of these, by committed units
    seconds: float  # of audio in the units

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
    again: Mapping[str, str] = NONE_AGAIN,
    unit_bytes: int = UNIT_BYTES,
    on_probed: Callable[[int], None] = lambda n: None,
    only: Collection[str] | None = None,
    limit: int | None = None,
) -> Plan:
    """Plan what `covered` (digests of rows that committed units hold) leaves over.

    `again` names the unit of a row that is tried once more: its new unit must not take the old one's name.
    `only` (ids) and then `limit` (the first so many) choose rows; the others are left out of the units.

    The limits of a unit come from the whole manifest and the windows from its row numbers, both before
    rows are taken out; rows are sorted ascending and cut greedily. So taking out whole units leaves the
    cuts between the others where they were.
    """
    manifest = utterances if isinstance(utterances, Manifest) else Manifest(utterances)
    who = identities(manifest)
    seconds = row_seconds(manifest, who, on_probed)
    cap = min(UNIT_SECONDS, max(SMALL_UNIT_SECONDS, seconds.sum() / SMALL_UNITS))
    cap = min(cap, unit_bytes / spec.bytes_per_second())
    chosen = choose_rows(manifest, only, limit) & manifest.with_audio
    done = among(who.digests, as_integers(covered)) & ~among(who.digests, as_integers(again))
    left = chosen & ~done
    order, starts = cut_windows(manifest, who.digests, seconds, left, cap)
    units = Units(manifest, who, seconds, again, order, starts, np.append(starts[1:], len(order)))
    return Plan(spec, units, who.digests[chosen], int((chosen & done).sum()), float(seconds[left].sum()))


def as_integers(digests: Iterable[str] | NDArray[np.uint64]) -> NDArray[np.uint64]:
    if isinstance(digests, np.ndarray):
        return digests
    return np.array([int(d, 16) for d in digests], np.uint64)


def among(digests: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """np.isin, in a third of its memory."""
    if not len(others):
        return np.zeros(len(digests), bool)
    others = np.sort(others)
    return others[np.minimum(np.searchsorted(others, digests), len(others) - 1)] == digests


def choose_rows(manifest: Manifest, only: Collection[str] | None, limit: int | None) -> NDArray[np.bool_]:
    chosen = np.ones(len(manifest), bool)
    if only is not None:
        wanted = np.array([xxhash.xxh3_64_intdigest(i.encode()) for i in only], np.uint64)
        chosen = among(hashes(manifest.ids), wanted)
    if limit is not None:
        chosen &= np.cumsum(chosen) <= limit
    return chosen


def cut_windows(
    manifest: Manifest,
    digests: NDArray[np.uint64],
    seconds: NDArray[np.float64],
    left: NDArray[np.bool_],
    cap: float,
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Rows in the order of their units, and where each unit begins. `cap`: seconds of a unit."""
    orders, cuts, before = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for start in range(0, len(manifest), WINDOW_ROWS):
        window = slice(start, start + WINDOW_ROWS)
        order, longest = sort_window(manifest.audio_filepaths[window], seconds[window], digests[window])
        kept = left[window][order]
        order, longest = order[kept] + start, longest[kept]
        starts = cut(seconds[order], longest, cap)
        unit = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
        order = order[np.lexsort((digests[order], seconds[order], unit))]
        orders.append(order)
        cuts.append(starts + before)
        before += len(order)
    return np.concatenate(orders), np.concatenate(cuts)


def sort_window(
    audio: pa.Array, seconds: NDArray[np.float64], digests: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows by the longest span of their file, the files' rows together; and that longest span, for each."""
    file = audio.dictionary_encode().indices.to_numpy()
    files = int(file.max()) + 1
    if files == len(audio):
        order = np.lexsort((digests, seconds))
        return order, seconds[order]
    longest, first = np.zeros(files), np.full(files, np.iinfo(np.uint64).max, np.uint64)
    np.maximum.at(longest, file, seconds)
    np.minimum.at(first, file, digests)  # tells files of equal length apart
    order = np.lexsort((digests, seconds, first[file], longest[file]))
    return order, longest[file][order]


def cut(seconds: NDArray[np.float64], longest: NDArray[np.float64], cap: float) -> NDArray[np.int64]:
    """Where units begin: before a row that might not fit any more, taken to be as long as its file's longest.

    That length ascends where a row's own need not, within a file; so what follows a unit, whichever
    rows that are, did not fit into it. Whole microseconds add up to the same sums wherever one begins.
    """
    longest_us = np.rint(longest * 1e6).astype(np.int64)
    sums = np.concatenate([[0], np.cumsum(np.rint(seconds * 1e6).astype(np.int64))])
    reached = sums[:-1] + longest_us  # ascends
    cap_us = int(cap * 1e6)
    starts, start = [], 0
    while start < len(seconds):
        starts.append(start)
        fits = int(np.searchsorted(reached, sums[start] + cap_us, side="right"))
        start = max(start + 1, min(fits, start + UNIT_ROWS))
    return np.array(starts, np.int64)


def identities(manifest: Manifest) -> Identities:
    """A digest for every row; a row that repeats an id gets one of its own."""
    digests = manifest.digests
    names = hashes(manifest.ids)
    ascending = np.sort(names)
    shared = ascending[1:][ascending[1:] == ascending[:-1]]
    if not len(shared):
        return Identities(digests, {})
    digests = digests.copy()
    first: dict[str, int] = {}
    repeats: dict[str, int] = {}
    repeated: dict[int, int] = {}
    rows = np.flatnonzero(among(names, shared))
    for i, identity in zip(rows.tolist(), manifest.ids.take(pa.array(rows)).to_pylist(), strict=True):
        if first.setdefault(identity, i) == i:
            continue
        digest = f"{digests[i]:016x}"
        repeats[digest] = n = repeats.get(digest, 1) + 1
        digests[i] = xxhash.xxh3_64_intdigest(f"{digest} again {n}".encode())
        repeated[i] = int(manifest.lines[first[identity]])
    return Identities(digests, repeated)


def row_seconds(manifest: Manifest, who: Identities, on_probed: Callable[[int], None]) -> NDArray[np.float64]:
    """Stated durations; where a row states none, what the header of its file leaves after its offset."""
    seconds = manifest.durations.copy()
    seconds[list(who.repeated)] = 0.0
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
