"""Records of a file as it stands: what every format reads, and what several of them need.

A record that cannot be read is yielded with its problem, so that one bad row does not hide the others.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AUDIO_SUFFIXES = {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),
    *(".m4a", ".mp4", ".aac", ".webm", ".wma", ".amr"),  # through FFmpeg
}


@dataclass(frozen=True)
class Record:
    """One record of a file; `row` counts lines or rows from 1. `values` is empty where there is a problem."""

    file: str
    row: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def walk(root: Path) -> Iterator[Path]:
    """Files below a folder; hidden ones are left out, links to folders are not followed (they may loop)."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


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
