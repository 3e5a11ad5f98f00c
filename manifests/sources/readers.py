"""Records of a file as it stands, one format a function: `read(path) -> Iterator[Record]`.

A record that cannot be read is yielded with its problem, so that one bad row does not hide the others.
"""

import csv
import gzip
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from coat.manifests import storage
from coat.manifests.corpus.reading import read_lines
from coat.manifests.errors import InputError, Problem

AUDIO_SUFFIXES = {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),
    *(".m4a", ".mp4", ".aac", ".webm", ".wma", ".amr"),  # through FFmpeg
}
PARQUET_BATCH_ROWS = 64  # embedded audio: a batch is held in memory


@dataclass(frozen=True)
class Record:
    """One record of a file; `row` counts lines or rows from 1. `values` is empty where there is a problem."""

    file: str
    row: int
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def read_folder(path: str) -> Iterator[Record]:
    """Audio files below a folder, in the order of their names; `a.txt` beside `a.wav` is its text."""
    root = Path(path)
    found = sorted(f for f in walk(root) if f.suffix.lower() in AUDIO_SUFFIXES)
    for row, audio in enumerate(found, start=1):
        values: dict[str, Any] = {"audio_filepath": audio.relative_to(root).as_posix()}
        sidecar = audio.with_suffix(".txt")
        try:
            if sidecar.is_file():
                values["text"] = sidecar.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as e:
            yield Record(path, row, problem=f"{sidecar}: not UTF-8 (byte {e.start}); save the file as UTF-8")
            continue
        yield Record(path, row, values)


def walk(root: Path) -> Iterator[Path]:
    """Files below a folder; hidden ones are left out, links to folders are not followed (they may loop)."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def read_json(path: str) -> Iterator[Record]:
    """One object a line, or one array of objects; `.gz` too."""
    if is_array(path):
        yield from read_array(path)
        return
    problems: list[Problem] = []
    for row, line in read_lines(path, problems):
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as e:
            yield Record(path, row, problem=f"not JSON ({e}); expected one object a line")
            continue
        yield as_record(path, row, value)
    yield from (Record(path, p.row, problem=p.message) for p in problems)


def is_array(path: str) -> bool:
    data = storage.read_bytes(path)
    try:
        head = gzip.GzipFile(fileobj=io.BytesIO(data)).read(64) if path.endswith(".gz") else data[:64]
    except (OSError, EOFError):
        return False  # not gzip: read_lines says so
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def read_array(path: str) -> Iterator[Record]:
    data = storage.read_bytes(path)
    try:
        values = json.loads(gzip.decompress(data) if path.endswith(".gz") else data)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: starts as a JSON array, but is not one ({e})") from e
    for row, value in enumerate(values, start=1):
        yield as_record(path, row, value)


def as_record(path: str, row: int, value: Any) -> Record:
    if not isinstance(value, dict):
        return Record(path, row, problem=f"expected an object, found {type(value).__name__}")
    return Record(path, row, value)


def read_csv(path: str) -> Iterator[Record]:
    """A header and rows; commas, semicolons or tabs, whichever the header has most of."""
    text = storage.read_bytes(path)
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        row = text.count(b"\n", 0, e.start) + 1
        yield Record(path, row, problem=f"not UTF-8 (byte {e.start} of the file); save the file as UTF-8")
        return
    header = decoded.split("\n", 1)[0]
    delimiter = max(("\t", ",", ";"), key=header.count)
    # Quotes mean nothing in the TSV files of this field (Common Voice): a stray one would swallow rows.
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(io.StringIO(decoded, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        yield from csv_records(path, reader, quoting == csv.QUOTE_NONE)
    except csv.Error as e:  # a quote that is never closed takes all that follows with it
        yield Record(path, reader.line_num, problem=f"not CSV here or above ({e}); check the quotes")


def csv_records(path: str, reader: "csv.DictReader[str]", as_written: bool) -> Iterator[Record]:
    names = reader.fieldnames or ()
    if twice := [n for n, times in Counter(names).items() if times > 1 and n]:
        raise InputError(f"{path}: columns named twice: {', '.join(twice)}; rename one")
    width = len(names)
    for values in reader:
        if None in values or any(v is None for v in values.values()):
            got = sum(v is not None for k, v in values.items() if k is not None) + len(values.get(None) or ())
            yield Record(path, reader.line_num, problem=f"{got} fields; expected {width} as in the header")
            continue
        yield Record(path, reader.line_num, {k: unquote(v) if as_written else v for k, v in values.items() if k})


def unquote(value: str) -> str:
    """A field that is quoted as a whole, its inner quotes doubled, as pandas writes TSV."""
    return value[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', value) else value


def read_parquet(path: str) -> Iterator[Record]:
    """A parquet file, or all that lie below a folder."""
    found = sorted(f for f in walk(Path(path)) if f.suffix == ".parquet") if os.path.isdir(path) else [Path(path)]
    for file in found:
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                batches = table.iter_batches(PARQUET_BATCH_ROWS)
                yield from number(str(file), (record for batch in batches for record in batch.to_pylist()))
        except FileNotFoundError as e:
            raise InputError(f"{file}: no such file") from e
        except pyarrow.ArrowException as e:
            raise InputError(f"{file}: not a whole parquet file ({first_line(e)})") from e


def read_saved_dataset(path: str) -> Iterator[Record]:
    """What Hugging Face `datasets` wrote with `save_to_disk`, read without it; parts of a dict as `split`."""
    splits = Path(path, "dataset_dict.json")
    if splits.is_file():
        names = storage.read_json(str(splits))
        if not isinstance(names, dict) or not isinstance(names.get("splits"), list):
            raise InputError(f"{splits}: no splits; expected what `save_to_disk` writes")
        for split in map(str, names["splits"]):
            for record in read_saved_dataset(str(Path(path, Path(split).name))):
                yield Record(record.file, record.row, {"split": split, **record.values}, record.problem)
        return
    try:
        names = [
            Path(part["filename"]).name for part in storage.read_json(str(Path(path, "state.json")))["_data_files"]
        ]
    except (FileNotFoundError, KeyError, TypeError) as e:
        raise InputError(f"{path}: no state.json as `save_to_disk` writes it ({e})") from e
    for file in (str(Path(path, name)) for name in names):
        try:
            with pyarrow.memory_map(file) as source, pyarrow.ipc.open_stream(source) as stream:
                yield from number(file, (row for batch in stream for row in batch.to_pylist()))
        except FileNotFoundError as e:
            raise InputError(f"{file}: no such file, though {path}/state.json names it") from e
        except pyarrow.ArrowException as e:
            raise InputError(f"{file}: not a whole Arrow file ({first_line(e)})") from e


def number(file: str, records: Iterator[Mapping[str, Any]]) -> Iterator[Record]:
    return (Record(file, row, values) for row, values in enumerate(records, start=1))


def first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
