"""From a manifest to units of work.

A unit is what one worker does at a time and what is committed at once. Units are cut so that the same
manifest gives the same units whatever is already done: a run that was killed goes on with the very
units (and so the very batches, and bytes) that an undisturbed run would have made.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType

import xxhash

from coat.manifests.audio import AudioError, probe
from coat.manifests.spec import TargetSpec
from coat.manifests.utterance import Utterance

UNIT_BYTES = 128 * 2**20  # of targets: large enough for object stores, small enough for memory
UNIT_SECONDS = 1800.0  # of audio, for small targets: what a kill costs at most
UNIT_ROWS = 4096
SMALL_UNIT_SECONDS = 60.0  # a small corpus is cut finer, down to this, so that every worker has work
SMALL_UNITS = 32  # ... into about so many
WINDOW_ROWS = 200_000  # rows that are sorted together: padding is small long before the whole corpus is


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
        return "u-" + xxhash.xxh3_64_hexdigest("\n".join(r.digest + r.again for r in self.rows).encode())

    @property
    def seconds(self) -> float:
        return sum(r.seconds for r in self.rows)

    def halves(self) -> tuple["Unit", "Unit"]:
        """For a unit that kills its worker: the poisonous row is in one of them."""
        middle = len(self.rows) // 2
        return Unit(self.rows[:middle]), Unit(self.rows[middle:])


@dataclass(frozen=True)
class Plan:
    """All units of a manifest that are not yet committed, longest rows last."""

    spec: TargetSpec
    units: tuple[Unit, ...]
    rows: tuple[PlannedRow, ...]  # of the whole manifest, covered ones too

    @property
    def seconds(self) -> float:
        return sum(u.seconds for u in self.units)

    @property
    def bytes(self) -> int:
        """Of targets that the units will add, as predicted from their durations."""
        return round(self.seconds * self.spec.bytes_per_second())


def make_plan(
    utterances: Sequence[Utterance],
    spec: TargetSpec,
    covered: Set[str] = frozenset(),
    again: Mapping[str, str] = MappingProxyType({}),
    unit_bytes: int = UNIT_BYTES,
    on_probed: Callable[[int], None] = lambda n: None,
) -> Plan:
    """Plan what `covered` (digests of rows that committed units hold) leaves over.

    `again` names the unit of a row that is tried once more: its new unit must not take the old one's name.

    The limits of a unit come from the whole manifest and the windows from its row numbers, both before
    covered rows are taken out; rows are sorted ascending and cut greedily. So taking out whole units
    leaves the cuts between the others where they were.
    """
    rows = tuple(planned_rows(utterances, on_probed))
    total = sum(r.seconds for r in rows)
    seconds_cap = min(UNIT_SECONDS, max(SMALL_UNIT_SECONDS, total / SMALL_UNITS))
    seconds_cap = min(seconds_cap, unit_bytes / spec.bytes_per_second())
    units: list[Unit] = []
    for start in range(0, len(rows), WINDOW_ROWS):
        left = (r for r in rows[start : start + WINDOW_ROWS] if r.digest not in covered)
        window = [replace(r, again=again[r.digest]) if r.digest in again else r for r in left]
        window.sort(key=lambda r: (r.seconds, r.digest))
        units.extend(cut(window, seconds_cap))
    return Plan(spec, tuple(units), rows)


def cut(rows: Iterable[PlannedRow], seconds_cap: float) -> Iterable[Unit]:
    unit: list[PlannedRow] = []
    seconds = 0.0
    for row in rows:
        if unit and (seconds + row.seconds > seconds_cap or len(unit) == UNIT_ROWS):
            yield Unit(tuple(unit))
            unit, seconds = [], 0.0
        unit.append(row)
        seconds += row.seconds
    if unit:
        yield Unit(tuple(unit))


def planned_rows(utterances: Sequence[Utterance], on_probed: Callable[[int], None]) -> Iterable[PlannedRow]:
    """A row per utterance. Of equal ids the first is taken; the others are at fault, each on its own digest."""
    first: dict[str, int] = {}
    repeats: dict[str, int] = {}
    durations = probed_durations(utterances, on_probed)
    for u, seconds in zip(utterances, durations, strict=True):
        if u.id in first:
            repeats[u.digest] = n = repeats.get(u.digest, 1) + 1
            digest = xxhash.xxh3_64_hexdigest(f"{u.digest} again {n}".encode())
            yield PlannedRow(u, digest, 0.0, f"duplicate_id: row {u.row} repeats the id of row {first[u.id]}")
        else:
            first[u.id] = u.row
            yield PlannedRow(u, u.digest, seconds)


def probed_durations(utterances: Sequence[Utterance], on_probed: Callable[[int], None]) -> list[float]:
    """Stated durations; where a row states none, what the header of its file leaves after its offset."""
    unknown = {u.audio for u in utterances if u.duration is None}
    lengths: dict[str, float] = {}
    with ThreadPoolExecutor(16) as pool:
        for audio, length in zip(unknown, pool.map(header_seconds, unknown), strict=True):
            lengths[audio] = length
            on_probed(1)
    return [max(0.0, lengths[u.audio] - u.offset if u.duration is None else u.duration) for u in utterances]


def header_seconds(audio: str) -> float:
    try:
        return probe(audio).seconds
    except AudioError:
        return 0.0  # decoding will give the row its reason
