"""Units of work: rows that one worker extracts at a time, and that are committed together.

Units are held as columns; rows become objects when a unit is taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.pipeline.plan.row_identities import RowIdentities


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """An utterance as it is to be extracted. `fault`: it fails without being decoded, for this reason."""

    utterance: Utterance
    digest: str
    seconds: float  # stated or probed; 0 where neither worked, so that decoding can say why
    fault: str | None = None
    previous_unit: str = ""  # that holds its outcome so far, where it is extracted once more
    attempt: int = 0  # 1 more than of that unit


@dataclass(frozen=True)
class Unit:
    """Rows in ascending length. The name is a digest of them: equal work has an equal name everywhere."""

    rows: tuple[PlannedRow, ...]

    @property
    def name(self) -> str:
        return unit_name(row.digest + row.previous_unit for row in self.rows)

    @property
    def attempt(self) -> int:
        """Counted: of two outcomes of a row that of the larger attempt is newer, whatever clocks said."""
        return max((row.attempt for row in self.rows), default=0)

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    def halves(self) -> tuple["Unit", "Unit"]:
        """For a unit that kills its worker: the row that kills is in one of them."""
        middle = len(self.rows) // 2
        return Unit(self.rows[:middle]), Unit(self.rows[middle:])


def unit_name(rows: Iterable[str]) -> str:
    return "u-" + xxhash.xxh3_64_hexdigest("\n".join(rows).encode())


@dataclass(frozen=True, eq=False)
class Units(Sequence[Unit]):
    """Units as columns; each is made when it is taken. A slice is a `Units` too, and costs nothing."""

    manifest: Manifest
    identities: RowIdentities
    seconds: NDArray[np.float64]  # of every row of the manifest
    redo: Mapping[str, str]  # digests of rows that are extracted once more: their previous unit
    order: NDArray[np.integer]  # rows of the manifest, unit after unit
    starts: NDArray[np.int64]  # in `order`, of each unit
    ends: NDArray[np.int64]
    cuts: NDArray[np.int64]  # the number of each unit's cut: one number for units of several experts that are cut alike
    attempts: Mapping[str, int] = field(default_factory=dict)  # of previous units

    @overload
    def __getitem__(self, index: int) -> Unit: ...
    @overload
    def __getitem__(self, index: slice) -> "Units": ...
    def __getitem__(self, index: int | slice) -> "Unit | Units":
        if isinstance(index, slice):
            return replace(self, starts=self.starts[index], ends=self.ends[index], cuts=self.cuts[index])
        rows = self.order[self.starts[index] : self.ends[index]]
        utterances = self.manifest.take(rows)
        return Unit(tuple(self.planned(int(row), u) for row, u in zip(rows, utterances, strict=True)))

    def planned(self, row: int, utterance: Utterance) -> PlannedRow:
        digest, first = f"{self.identities.digests[row]:016x}", self.identities.repeated.get(row)
        fault = None
        if first is not None:
            name = self.manifest.row_name
            fault = f"duplicate_id: {name(utterance.row)} repeats the id of {name(first)}"
        previous = self.redo.get(digest, "")
        attempt = self.attempts.get(previous, 0) + 1 if previous else 0
        return PlannedRow(utterance, digest, float(self.seconds[row]), fault, previous, attempt)

    def __len__(self) -> int:
        return len(self.starts)
