"""What done.json says of every committed unit, as columns: for hundreds of thousands of units."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

STAGES = ("decode", "wait", "forward", "write")
# Some 200 bytes a unit, where a dict of the same takes 1.5 KB. Digests and times are ASCII.
KEPT = np.dtype(
    [
        ("attempt", "i4"),
        ("rows", "i8"),
        ("frames", "i8"),
        ("bytes", "i8"),
        ("audio_seconds", "f8"),
        ("padded_audio_seconds", "f8"),
        ("heard_audio_seconds", "f8"),
        *((stage, "f8") for stage in STAGES),
        ("xxh3", "S32"),
        ("finished_at", "S32"),
        ("writer", "S16"),
    ]
)


class UnitTable(Mapping[str, Mapping[str, Any]]):
    """By unit, oldest commit first: the parts of its done.json that reading, counting and planning need.

    Which commit is older is decided by the counted `attempt`: clocks of two writers may differ. Stores written before
    attempts were counted have 0; among equal ones the time decides.
    """

    def __init__(self, names: Sequence[str], values: NDArray[np.void]) -> None:
        assert values.dtype == KEPT
        order = np.lexsort((np.array(names, "S"), values["finished_at"], values["attempt"]))
        is_ordered = bool((order[1:] > order[:-1]).all())  # as a rule where units were added: then nothing is copied
        self.names: list[str] = list(names) if is_ordered else [names[int(i)] for i in order]
        self.values_U = values if is_ordered else values[order]

    @cached_property
    def position(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @classmethod
    def of(cls, done: Mapping[str, Mapping[str, Any]]) -> "UnitTable":
        return cls(list(done), kept_values(list(done.values())))

    @classmethod
    def joined(cls, tables: list["UnitTable"]) -> "UnitTable":
        """One of all. Empties the list, so that they are not there three times."""
        names = [n for t in tables for n in t.names]
        values = np.concatenate([np.zeros(0, KEPT), *(t.values_U for t in tables)])
        tables.clear()
        return cls(names, values)

    def extended(self, other: "UnitTable") -> "UnitTable":
        return self.joined([self, other])

    def sum(self, column: str) -> float:
        return float(self.values_U[column].sum())

    def frames(self, units: Iterable[str]) -> dict[str, int]:
        """Of many units, which would take long as dicts."""
        names = list(units)
        found = self.values_U["frames"][[self.position[name] for name in names]] if names else []
        return dict(zip(names, map(int, found), strict=True))

    def writer(self, unit: str) -> str:
        return self.values_U["writer"][self.position[unit]].decode()

    def __getitem__(self, unit: str) -> Mapping[str, Any]:
        row = self.values_U[self.position[unit]]
        found = {name: row[name].item() for name in KEPT.names or ()}
        found["seconds"] = {stage: found.pop(stage) for stage in STAGES}
        return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def kept_values(done: Sequence[Mapping[str, Any]]) -> NDArray[np.void]:
    """The KEPT parts of done.json files; zero or empty where one, of an earlier version, has none."""
    values = np.zeros(len(done), KEPT)
    for name in KEPT.names or ():
        if name in STAGES:
            values[name] = [d.get("seconds", {}).get(name, 0.0) for d in done]
        else:
            values[name] = [d.get(name, 0 if KEPT[name].kind in "if" else "") for d in done]
    return values
