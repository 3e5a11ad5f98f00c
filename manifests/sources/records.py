"""Records of a file as it stands: what every format reads, and what several of them need.

A record that cannot be read is yielded with its problem, so that one bad row does not hide the others.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coat.manifests.errors import InputError

AUDIO_SUFFIXES = {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),
    *(".m4a", ".mp4", ".aac", ".webm", ".wma", ".amr"),  # through FFmpeg
}


@dataclass(frozen=True)
class Record:
    """One record of a file; `row` counts lines or rows from 1. `values` is empty where there is a problem, or a note:
    something that is left out, and that the closing lines of an import name. `columns`: what the file says of its own,
    by native key."""

    file: str
    row: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    note: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredBytes:
    """Bytes of a table, which are read where they lie."""

    address: str


@dataclass(frozen=True)
class Refused:
    """A row of a record that has others, and why it is not one."""

    message: str


def walk(root: Path, notes: list[str] | None = None) -> Iterator[Path]:
    """Files below a folder; hidden ones are left out. Links to folders are followed when all else was walked, and no
    folder is walked twice (they may loop). `notes` is told of what was left out. InputError where one cannot be read.
    """
    seen: set[str] = set()
    hidden = 0
    tops = [root]
    while tops:
        links: list[Path] = []
        for top in tops:
            for folder, subfolders, names in os.walk(top, onerror=cannot_be_read):
                if (real := os.path.realpath(folder)) in seen:
                    subfolders[:] = []
                    if notes is not None:
                        notes.append(f"{folder}: a link to a folder that was read already; not followed")
                    continue
                seen.add(real)
                hidden += sum(name.startswith(".") for name in [*subfolders, *names])
                subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
                links += [Path(folder, s) for s in subfolders if os.path.islink(os.path.join(folder, s))]
                subfolders[:] = [s for s in subfolders if not os.path.islink(os.path.join(folder, s))]
                yield from (Path(folder, name) for name in names if not name.startswith("."))
        tops = links
    if hidden and notes is not None:
        notes.append(f"{root}: {hidden} hidden files and folders (.NAME), left out")


def cannot_be_read(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read ({error.strerror or error}); what is in it would be lost")


SPLIT = re.compile(r"(train|training|test|testing|dev|valid|validation|val|eval|evaluation)", re.IGNORECASE)


def split_of(relative: Path) -> str:
    """The split that a file's name or folder says, as Hugging Face names them; empty where neither does."""
    name, _, numbers = relative.stem.partition("-")
    if relative.suffix == ".parquet" and (re.fullmatch(r"\d+-of-\d+", numbers) or SPLIT.fullmatch(name)):
        return name
    if relative.suffix == ".parquet" and (
        found := re.match(rf"{SPLIT.pattern}(?![A-Za-z])", relative.stem, re.IGNORECASE)
    ):
        return found[1]
    return next((part for part in relative.parts[:-1] if re.match(rf"{SPLIT.pattern}(?![A-Za-z])", part, re.I)), "")


def numbered(file: str, records: Iterator[Mapping[str, Any]]) -> Iterator[Record]:
    return (Record(file, row, values) for row, values in enumerate(records, start=1))


def first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]


def list_of_objects(item: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """A list of JSON objects; empty where there is none."""
    value = item.get(name) or []
    if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
        raise ValueError(f"{name} must be a list of objects")
    return value
