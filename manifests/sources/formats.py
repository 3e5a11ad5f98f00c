"""The formats by name, and which one a file or folder is. A new one is a file here and a line in FORMATS."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coat.manifests.errors import InputError
from coat.manifests.sources.channels import Channel
from coat.manifests.sources.csv_tsv import read_csv
from coat.manifests.sources.folder import read_folder
from coat.manifests.sources.json_lines import read_json_records
from coat.manifests.sources.kaldi import is_kaldi, read_kaldi
from coat.manifests.sources.lhotse.cuts import IGNORED, from_cut, is_cut
from coat.manifests.sources.lhotse.recordings import is_recording_or_supervision, read_recordings
from coat.manifests.sources.lhotse.shar import is_shar, read_shar
from coat.manifests.sources.parquet import has_parquet, read_parquet
from coat.manifests.sources.records import Record, Refused
from coat.manifests.sources.saved_dataset import is_saved_dataset, read_saved_dataset
from coat.manifests.sources.swift import from_swift, is_conversation

JSON = (".jsonl", ".json", ".ndjson")


@dataclass(frozen=True)
class Format:
    """How a corpus in one form is read, and known without `--format`."""

    read: Callable[[str], Iterator[Record]]  # records of a file, or of a folder
    # None: columns are found by their names
    to_rows: Callable[[Mapping[str, Any]], list[dict[str, Any] | Refused]] | None = None
    # The same for records that say themselves which channel they are of
    at_channel: Callable[[Mapping[str, Any], Channel], list[dict[str, Any] | Refused]] | None = None
    ignored: tuple[str, ...] = ()  # keys of a record that come to nothing
    takes: Literal["file", "folder", "either"] = "file"
    suffixes: tuple[str, ...] = ()  # of a file, before `.gz`
    # Of several formats with one suffix, that which knows the first record; one without this takes what is left.
    knows_record: Callable[[Mapping[str, Any]], bool] | None = None
    knows_folder: Callable[[Path], bool] | None = None


FORMATS = {
    "folder": Format(read_folder, takes="folder"),
    "jsonl": Format(read_json_records, suffixes=JSON),
    "csv": Format(read_csv, suffixes=(".csv", ".tsv")),
    "parquet": Format(read_parquet, takes="either", suffixes=(".parquet",), knows_folder=has_parquet),
    "dataset": Format(read_saved_dataset, takes="folder", knows_folder=is_saved_dataset),
    "swift": Format(read_json_records, from_swift, suffixes=JSON, knows_record=is_conversation),
    "lhotse": Format(read_json_records, at_channel=from_cut, suffixes=JSON, knows_record=is_cut, ignored=IGNORED),
    "lhotse-recordings": Format(
        read_recordings, at_channel=from_cut, suffixes=JSON, knows_record=is_recording_or_supervision
    ),
    "shar": Format(read_shar, at_channel=from_cut, takes="folder", knows_folder=is_shar, ignored=IGNORED),
    "kaldi": Format(read_kaldi, takes="folder", knows_folder=is_kaldi),
}


def detect_format(source: str) -> str:
    """The format of a file or folder, by its names and first record. InputError where none fits."""
    if os.path.isdir(source):
        return next((name for name, f in FORMATS.items() if f.knows_folder and f.knows_folder(Path(source))), "folder")
    file_name = source.lower().removesuffix(".gz")
    candidates = {name: f for name, f in FORMATS.items() if file_name.endswith(f.suffixes)}
    if file_name.endswith((".tar", ".tgz")):
        raise InputError(f"{source}: a tar; audio in tars is not read in place yet: unpack it, and import the folder")
    if not candidates:
        raise InputError(f"{source}: unknown form; --format says which ({', '.join(FORMATS)})")
    if len(candidates) > 1:
        first = next((r.values for r in read_json_records(source) if r.values), {})
        candidates = {name: f for name, f in candidates.items() if f.knows_record is None or f.knows_record(first)}
    return max(candidates, key=lambda name: candidates[name].knows_record is not None)
