"""What became of each column of a source: used, kept under a name, or ignored. Nothing is left out unsaid."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coat.manifests.sources.column_names import is_binary

SHAPES = 10_000  # remembered
SHOWN = 20  # names in a line


@dataclass
class Accounts:
    """Columns by name, in the order that they were seen."""

    used: dict[str, set[str]] = field(default_factory=dict)  # column: native keys
    kept: dict[str, None] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)  # column: why
    notes: list[str] = field(default_factory=list)  # on what was left out: files, folders
    told: set[tuple[Any, ...]] = field(default_factory=set)  # names and types of records that say nothing new

    def add(self, values: Mapping[str, Any], column_of_key: Mapping[str, str], ignored: Iterable[str]) -> None:
        """Of one record. `column_of_key`: what is used, by native key; of equal names it is the same."""
        shape = (tuple(values), tuple(map(type, values.values())))
        if shape in self.told:
            return
        if not any(issubclass(kind, Mapping) for kind in shape[1]) and len(self.told) < SHAPES:
            self.told.add(shape)
        used = {column: key for key, column in column_of_key.items()}
        for name, value in values.items():
            if name in used:
                self.used.setdefault(name, set()).update(k for k, column in column_of_key.items() if column == name)
            elif name in ignored:
                self.ignored[name] = "not a row's"
            elif is_binary(value):
                self.ignored[name] = "binary"
            elif isinstance(value, Mapping) and any(is_binary(v) for v in value.values()):
                self.ignored[name] = "its bytes"
                self.kept[name] = None
            elif value is not None:
                self.kept[name] = None

    def lines(self) -> list[str]:
        """For the end of an import."""
        parts = []
        if self.used:
            parts.append("used " + listed(f"{c} ({', '.join(sorted(keys))})" for c, keys in self.used.items()))
        if kept := [name for name in self.kept if name not in self.used]:
            parts.append("kept " + listed(kept))
        if ignored := {k: why for k, why in self.ignored.items() if k not in self.used}:
            parts.append("ignored " + listed(f"{name} ({why})" for name, why in ignored.items()))
        return ([f"columns: {'; '.join(parts)}"] if parts else []) + self.notes


def listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more
