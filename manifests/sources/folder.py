"""A folder of audio files, with their texts beside them: `a.txt` of `a.wav`, or tables such as `metadata.csv`."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coat.manifests import storage
from coat.manifests.sources.column_names import Columns
from coat.manifests.sources.records import AUDIO_SUFFIXES, Record, split_of, walk
from coat.manifests.sources.tables.csv_tsv import read_csv
from coat.manifests.sources.tables.json_lines import read_json_records
from coat.manifests.sources.tables.parquet import read_parquet

READERS = {
    "metadata.csv": read_csv,
    "metadata.tsv": read_csv,
    "metadata.jsonl": read_json_records,
    "metadata.parquet": read_parquet,
}


def read_folder(path: str) -> Iterator[Record]:
    """Audio files below a folder, in the order of their names; `a.txt` beside `a.wav` is its text.

    `metadata.csv` (`.tsv`, `.jsonl`, `.parquet`), as Hugging Face's audio folders have it, gives further columns.
    """
    root = Path(path)
    notes: list[str] = []
    files = list(walk(root, notes))
    audio = sorted(f for f in files if f.suffix.lower() in AUDIO_SUFFIXES)
    places = {os.path.abspath(f) for f in audio}
    metadata = Metadata()
    for file in sorted(f for f in files if f.name in READERS):
        metadata.add(file.absolute(), places)
    yield from metadata.problems
    texts: set[Path] = set()
    for row, file in enumerate(audio, start=1):
        relative = file.relative_to(root).as_posix()
        if not is_text(relative):
            notes.append(f"{os.fsencode(relative)!r}: a name that is not UTF-8; left out, rename it")
            continue
        values: dict[str, Any] = {"audio_filepath": relative}
        if split := split_of(file.relative_to(root)):
            values["split"] = split
        sidecar = file.with_suffix(".txt")
        try:
            if sidecar.is_file():
                texts.add(sidecar)
                values["text"] = sidecar.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as e:
            yield Record(path, row, problem=f"{sidecar}: not UTF-8 (byte {e.start}); save the file as UTF-8")
            continue
        said = metadata.of(os.path.abspath(file))
        yield Record(path, row, values | {k: v for k, v in said.items() if v is not None})
    used = {*audio, *texts}
    passed_over = Counter(f.suffix or f.name for f in files if f not in used and f.name not in READERS)
    if passed_over:
        counted = ", ".join(f"{count} {suffix}" for suffix, count in passed_over.most_common(10))
        notes.append(f"{path}: files that are neither audio nor a text beside it, passed over: {ascii(counted)[1:-1]}")
    yield from (Record(path, 0, note=note) for note in notes)


def is_text(name: str) -> bool:
    """Whether a name can stand in a manifest, which is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass
class Metadata:
    """By path of an audio file: the other columns, and where they stand."""

    rows: dict[str, tuple[Record, dict[str, Any]]] = field(default_factory=dict)
    problems: list[Record] = field(default_factory=list)

    def add(self, file: Path, audio: set[str]) -> None:
        """A table whose rows name files below its folder. Each row must name one, and one that is there."""
        for record in ljspeech(file, audio) or READERS[file.name](str(file)):
            if record.problem or record.note:
                self.problems.append(record)
                continue
            column = Columns.detect(record.values, {}).column_of_key.get("audio_filepath", "")
            name = record.values.get(column)
            path = named_file(file.parent, str(name), audio) if name else ""
            if not path:
                said = f"names no file that is there ({name!r})" if name else "no column names a file (file_name)"
                self.problems.append(Record(str(file), record.row, problem=f"{said}; what it says would be lost"))
            elif path in self.rows:
                said = f"{name!r} was described before ({self.rows[path][0].file}:{self.rows[path][0].row})"
                self.problems.append(Record(str(file), record.row, problem=said))
            else:
                self.rows[path] = record, {k: v for k, v in record.values.items() if k != column}

    def of(self, path: str) -> Mapping[str, Any]:
        """What is said of a file; each is asked for once."""
        return self.rows[path][1] if path in self.rows else {}


def named_file(folder: Path, name: str, audio: set[str]) -> str:
    """The path of a file that a row names, also without its suffix or below `wavs` (LJSpeech); empty where none is."""
    for place in (folder, folder / "wavs"):
        path = storage.resolve(str(place), name)
        if found := next((p for p in (path, *(path + s for s in sorted(AUDIO_SUFFIXES))) if p in audio), ""):
            return found
    return ""


def ljspeech(file: Path, audio: set[str]) -> Iterator[Record] | None:
    """LJSpeech's table: `id|text|normalized text`, without a header. None where it is not one."""
    if file.suffix != ".csv":
        return None
    try:
        lines = storage.read_bytes(str(file)).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return None  # the reader of CSV says so
    fields = lines[0].split("|") if lines else []
    if len(fields) not in (2, 3) or not named_file(file.parent, fields[0], audio):
        return None
    names = ("file_name", "text", "normalized_text")
    rows = ((row, line.split("|")) for row, line in enumerate(lines, start=1) if line)
    return (
        Record(str(file), row, dict(zip(names, values, strict=False)))
        if len(values) == len(fields)
        else Record(str(file), row, problem=f"{len(values)} fields; expected {len(fields)}")
        for row, values in rows
    )
