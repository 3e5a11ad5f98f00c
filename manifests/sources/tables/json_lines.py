"""JSON: one object a line (NeMo's manifests, and most others), or one array of objects."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

from coat.manifests import storage
from coat.manifests.corpus.reading import numbered_lines, open_text
from coat.manifests.errors import InputError, Problem
from coat.manifests.sources.records import Record


def read_json_records(path: str) -> Iterator[Record]:
    """One object a line, or one array of objects; `.gz` too."""
    if starts_as_array(path):
        yield from read_json_array(path)
        return
    problems: list[Problem] = []
    for row, line in numbered_lines(path, problems):
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as e:
            yield Record(path, row, problem=f"not JSON ({e}); expected one object a line")
            continue
        yield to_record(path, row, value)
    yield from (Record(path, p.row, problem=p.message) for p in problems)


def starts_as_array(path: str) -> bool:
    with open_text(path) as f:
        try:
            head = f.read(64)
        except (OSError, EOFError):
            return False  # not gzip: numbered_lines says so
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def read_json_array(path: str) -> Iterator[Record]:
    data = storage.read_bytes(path)
    try:
        values = json.loads(gzip.decompress(data) if path.endswith(".gz") else data)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: starts as a JSON array, but is not one ({e})") from e
    for row, value in enumerate(values, start=1):
        yield to_record(path, row, value)


def to_record(path: str, row: int, value: Any) -> Record:
    if not isinstance(value, dict):
        return Record(path, row, problem=f"expected an object, found {type(value).__name__}")
    return Record(path, row, value)
