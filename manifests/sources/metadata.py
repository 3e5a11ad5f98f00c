"""What a folder's own tables say of its audio files: `metadata.csv` and its like, beside them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coat.manifests import storage
from coat.manifests.sources.column_names import Columns
from coat.manifests.sources.csv_tsv import read_csv
from coat.manifests.sources.json_lines import read_json_records
from coat.manifests.sources.parquet import read_parquet
from coat.manifests.sources.records import AUDIO_SUFFIXES, Record

READERS = {
    "metadata.csv": read_csv,
    "metadata.tsv": read_csv,
    "metadata.jsonl": read_json_records,
    "metadata.parquet": read_parquet,
}


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
