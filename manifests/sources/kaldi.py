"""Kaldi's data folders: `wav.scp`, and beside it `segments`, `text`, `utt2spk` and other tables by utterance.

A table is a key and a value a line. Commands (`... |`) in `wav.scp` are refused, and never run.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from coat.manifests import storage
from coat.manifests.corpus.reading import numbered_lines
from coat.manifests.errors import Problem
from coat.manifests.sources.records import Record

RECORDINGS, SEGMENTS = "wav.scp", "segments"
COLUMNS = {"text": "text", "utt2spk": "speaker", "utt2lang": "lang", "utt2dur": "duration"}  # of tables by utterance
BY_UTTERANCE = re.compile(r"utt2(\w+)")
COUNTED = ("utt2num_frames", "utt2uniq", "utt2max_frames")  # of features, or of copies: they say nothing of the audio
IN_ARCHIVE = re.compile(r".+:\d+(\[.*\])?")  # `a.ark:1234`: the archive is Kaldi's own


def is_kaldi(folder: str) -> bool:
    return storage.is_file(storage.join(folder, RECORDINGS))


@dataclass(frozen=True)
class Line:
    """A line of a table, taken apart at its first blank."""

    file: str
    row: int
    key: str
    value: str

    def problem(self, message: str) -> Record:
        return Record(self.file, self.row, problem=message)


@dataclass
class Tables:
    """What stands beside the audio, by utterance; each is asked for once."""

    values: dict[str, dict[str, Line]] = field(default_factory=dict)  # by column

    def of(self, utterance: str) -> dict[str, str]:
        found = {column: lines.pop(utterance) for column, lines in self.values.items() if utterance in lines}
        return {column: line.value for column, line in found.items()}

    def left(self) -> Iterator[Line]:
        """Lines of utterances that were not asked for."""
        for lines in self.values.values():
            yield from lines.values()


def read_kaldi(path: str) -> Iterator[Record]:
    """A row for each segment or, without `segments`, for each recording."""
    problems: list[Record] = []
    names = storage.list_names(path)
    recordings = {line.key: line for line in read_table(storage.join(path, RECORDINGS), problems)}
    tables = Tables()
    for name in names:
        found = BY_UTTERANCE.fullmatch(name)
        if name in COLUMNS or (found and name not in COUNTED):
            lines = read_table(storage.join(path, name), problems)
            tables.values[COLUMNS.get(name) or name] = {line.key: line for line in lines}
    has_segments = SEGMENTS in names
    yield from problems
    rows = segments(storage.join(path, SEGMENTS), recordings) if has_segments else map(recording, recordings.values())
    for row in rows:
        if row.problem:
            yield row
            continue
        said = tables.of(str(row.values["id"]))
        if has_segments:
            said.pop("duration", None)  # the segment has one
        yield Record(row.file, row.row, {**row.values, **said})
    for line in tables.left():
        where = SEGMENTS if has_segments else RECORDINGS
        yield line.problem(f"{line.key!r} is not in {where}; what is said of it would be lost")
    read = {RECORDINGS, SEGMENTS, *COLUMNS, *(n for n in names if BY_UTTERANCE.fullmatch(n) and n not in COUNTED)}
    if others := sorted(set(names) - read):
        yield Record(path, 0, note=f"{path}: files that are not read: {', '.join(others[:10])}")


def read_table(url: str, problems: list[Record]) -> Iterator[Line]:
    """Lines in their order; what has no key, or one that was there before, goes to `problems`."""
    keys: set[str] = set()
    found: list[Problem] = []
    for row, text in numbered_lines(url, found):
        key, _, value = text.strip().replace("\t", " ").partition(" ")
        if key in keys:
            problems.append(Record(url, row, problem=f"{key!r} is there twice"))
            continue
        keys.add(key)
        yield Line(url, row, key, value.strip())
    problems += [Record(url, p.row, problem=p.message) for p in found]


def recording(line: Line) -> Record:
    """A whole file."""
    if reason := refused(line.value):
        return line.problem(f"{line.key}: {reason}")
    return Record(line.file, line.row, {"id": line.key, "audio_filepath": line.value})


def refused(value: str) -> str:
    """Why an entry of `wav.scp` is not a file; empty where it is one."""
    if not value or value == "-":
        return "names no file"
    if value.endswith("|") or value.startswith("|"):
        return f"a command ({value[:60]}), which is never run; write its output to files, and name these"
    if IN_ARCHIVE.fullmatch(value):
        return f"a place in an archive of Kaldi's ({value[-60:]}); copy the audio out of it (`wav-copy`)"
    return ""


def segments(url: str, recordings: dict[str, Line]) -> Iterator[Record]:
    """UTTERANCE RECORDING START END, in seconds; an end of -1 is that of the recording."""
    problems: list[Record] = []
    for line in read_table(url, problems):
        fields = line.value.split()
        try:
            (name, start, end) = fields[0], *map(float, fields[1:])
        except (IndexError, ValueError):
            yield line.problem("not a segment; expected UTTERANCE RECORDING START END, in seconds")
            continue
        if name not in recordings:
            yield line.problem(f"recording {name!r} is not in {RECORDINGS}")
        elif reason := refused(recordings[name].value):
            yield line.problem(f"recording {name}: {reason}")
        elif start < 0 or (end <= start and end != -1) or not math.isfinite(start + end):
            yield line.problem(f"from {start} s to {end} s; expected 0 <= START < END, or an END of -1")
        else:
            values = {"id": line.key, "audio_filepath": recordings[name].value, "offset": start, "recording": name}
            yield Record(line.file, line.row, values | ({} if end == -1 else {"end": end}))
    yield from problems
