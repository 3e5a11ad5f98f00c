"""Units of work: rows that one worker extracts at a time, and that are committed together.

Units are held as columns; rows become objects when a unit is taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.pipeline.plan.row_identities import Identities


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
