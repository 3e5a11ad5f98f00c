"""The formats by name, and which one a file or folder is. A new one is a file here and a line in FORMATS."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.sources.channels import Channel
from coat.manifests.sources.folder import read_folder
from coat.manifests.sources.kaldi import is_kaldi, read_kaldi
from coat.manifests.sources.lhotse.cuts import IGNORED, from_cut, is_cut
from coat.manifests.sources.lhotse.recordings import is_recording_or_supervision, read_recordings
from coat.manifests.sources.lhotse.shar import is_shar, read_shar
from coat.manifests.sources.records import Record, Refused
from coat.manifests.sources.swift import from_swift, is_conversation
from coat.manifests.sources.tables.csv_tsv import read_csv
from coat.manifests.sources.tables.json_lines import read_json_records
from coat.manifests.sources.tables.parquet import count_rows, has_parquet, read_parquet
from coat.manifests.sources.tables.saved_dataset import is_saved_dataset, read_saved_dataset
from coat.manifests.sources.tars.coat_shards import as_it_is, is_shard_set, read_coat_shards
from coat.manifests.sources.tars.members import COMPRESSED_SUFFIXES
from coat.manifests.sources.tars.nemo import has_nemo_tars, is_tarred, read_nemo_tarred
from coat.manifests.sources.tars.options import TarOptions
from coat.manifests.sources.tars.webdataset import has_tars, read_webdataset

JSON = (".jsonl", ".json", ".ndjson")


@dataclass(frozen=True)
class Format:
    """How a corpus in one form is read, and known without `--format`."""

    read: Callable[[str], Iterator[Record]] = read_json_records  # records of a file, or of a folder
    # None: columns are found by their names
    to_rows: Callable[[Mapping[str, Any]], list[dict[str, Any] | Refused]] | None = None
    # The same for records that say themselves which channel they are of
    at_channel: Callable[[Mapping[str, Any], Channel], list[dict[str, Any] | Refused]] | None = None
    ignored: tuple[str, ...] = ()  # keys of a record that come to nothing
    takes: Literal["file", "folder", "either"] = "file"
    count_rows: Callable[[str], int] | None = None  # where that is told without reading them
    suffixes: tuple[str, ...] = ()  # of a file, before `.gz`
    # Of several formats with one suffix, that which knows the first record; one without this takes what is left.
    knows_record: Callable[[Mapping[str, Any]], bool] | None = None
    knows_folder: Callable[[str], bool] | None = None
    read_tars: Callable[[Sequence[str], TarOptions], Iterator[Record]] | None = None  # in place of `read`: all sources


FORMATS = {  # of several that know a folder, the first
    "shards": Format(to_rows=as_it_is, takes="folder", knows_folder=is_shard_set, read_tars=read_coat_shards),
    "folder": Format(read_folder, takes="folder"),
    "jsonl": Format(read_json_records, suffixes=JSON),
    "csv": Format(read_csv, suffixes=(".csv", ".tsv")),
    "parquet": Format(
        read_parquet, takes="either", suffixes=(".parquet",), knows_folder=has_parquet, count_rows=count_rows
    ),
    "dataset": Format(
        read_saved_dataset, takes="either", suffixes=(".arrow", ".feather"), knows_folder=is_saved_dataset
    ),
    "swift": Format(read_json_records, from_swift, suffixes=JSON, knows_record=is_conversation),
    "lhotse": Format(read_json_records, at_channel=from_cut, suffixes=JSON, knows_record=is_cut, ignored=IGNORED),
    "lhotse-recordings": Format(
        read_recordings, at_channel=from_cut, suffixes=JSON, knows_record=is_recording_or_supervision
    ),
    "shar": Format(read_shar, at_channel=from_cut, takes="folder", knows_folder=is_shar, ignored=IGNORED),
    "kaldi": Format(read_kaldi, takes="folder", knows_folder=is_kaldi),
    "nemo-tarred": Format(
        takes="either", suffixes=JSON, knows_record=is_tarred, knows_folder=has_nemo_tars, read_tars=read_nemo_tarred
    ),
    "webdataset": Format(
        takes="either", suffixes=(".tar", *COMPRESSED_SUFFIXES), knows_folder=has_tars, read_tars=read_webdataset
    ),
}


def detect_format(source: str) -> str:
    """The format of a file or folder, by its names and first record. InputError where none fits."""
    if is_folder(source):
        known = next((name for name, f in FORMATS.items() if f.knows_folder and f.knows_folder(source)), "")
        if not known and not storage.is_local(source):
            raise InputError(f"{source}: no tars in it; of a store, audio files are named by a manifest or table")
        return known or "folder"
    file_name = source.lower()
    candidates = {name: f for name, f in FORMATS.items() if f.suffixes and file_name.endswith(f.suffixes)}
    if not candidates and (plain := file_name.removesuffix(".gz")) != file_name:
        candidates = {name: f for name, f in FORMATS.items() if f.suffixes and plain.endswith(f.suffixes)}
    if not candidates:
        raise InputError(f"{source}: unknown form; --format says which ({', '.join(FORMATS)})")
    if len(candidates) > 1:
        first = next((r.values for r in read_json_records(source) if r.values), {})
        candidates = {name: f for name, f in candidates.items() if f.knows_record is None or f.knows_record(first)}
    return max(candidates, key=lambda name: candidates[name].knows_record is not None)


def is_folder(source: str) -> bool:
    """Also of a store, whose folders are what keys begin with."""
    return storage.local_path(source).is_dir() if storage.is_local(source) else not storage.is_file(source)
