"""Files below a folder, here or in a store."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from coat.manifests import storage
from coat.manifests.sources.records import walk


def paths_below(folder: str, notes: list[str] | None = None) -> Iterator[str]:
    """Hidden ones are left out. `notes` is told of what else was, here."""
    if storage.is_local(folder):
        yield from (str(file) for file in walk(storage.local_path(folder), notes))
    else:
        yield from storage.files_below(folder, ("",))


def find_files(folder: str, ends: tuple[str, ...], notes: list[str]) -> list[str]:
    """Those whose names end so, in order. `notes` is told of the others."""
    found: list[str] = []
    others: Counter[str] = Counter()
    for path in paths_below(folder, notes):
        if path.lower().endswith(ends):
            found.append(path)
        else:
            others[Path(path).suffix or Path(path).name] += 1
    if others:
        counted = ", ".join(f"{count} {kind}" for kind, count in others.most_common(10))
        notes.append(f"{folder}: other files, passed over: {ascii(counted)[1:-1]}")
    return sorted(found)
