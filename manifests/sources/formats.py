"""The formats by name, and which one a file or folder is. A new one is a file here and a line in FORMATS.

Where its records are not tables with a column a key, `to_rows` makes rows of one; where it is to be found without
`--format`, `detect_format` says by what.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coat.manifests.errors import InputError
from coat.manifests.sources.csv_tsv import read_csv
from coat.manifests.sources.folder import read_folder
from coat.manifests.sources.json_lines import read_json_records
from coat.manifests.sources.lhotse import from_cut
from coat.manifests.sources.parquet import read_parquet
from coat.manifests.sources.records import Record, walk
from coat.manifests.sources.saved_dataset import read_saved_dataset
from coat.manifests.sources.swift import from_swift


@dataclass(frozen=True)
class Format:
    """How a corpus in one form is read."""

    read: Callable[[str], Iterator[Record]]  # records of a file, or of a folder
    to_rows: Callable[[Mapping[str, Any]], list[dict[str, Any]]] | None = None  # None: columns are found by their names


FORMATS = {
    "folder": Format(read_folder),
    "jsonl": Format(read_json_records),
    "csv": Format(read_csv),
    "parquet": Format(read_parquet),
    "dataset": Format(read_saved_dataset),
    "lhotse": Format(read_json_records, from_cut),
    "swift": Format(read_json_records, from_swift),
}
FOLDERS = ("folder", "dataset")  # parquet may be either


def detect_format(source: str) -> str:
    """The format of a file or folder, by its names and first row. InputError where none fits."""
    if os.path.isdir(source):
        if any(Path(source, name).is_file() for name in ("dataset_dict.json", "state.json")):
            return "dataset"
        return "parquet" if any(f.suffix == ".parquet" for f in walk(Path(source))) else "folder"
    name = source.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        return "csv"
    if name.endswith(".parquet"):
        return "parquet"
    if not name.endswith((".jsonl", ".json", ".ndjson")):
        raise InputError(f"{source}: unknown form; --format says which ({', '.join(FORMATS)})")
    first = next((r.values for r in read_json_records(source) if r.values), {})
    if "audios" in first or "messages" in first:
        return "swift"
    return "lhotse" if "recording" in first or str(first.get("type", "")).endswith("Cut") else "jsonl"
