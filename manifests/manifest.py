"""Manifests: JSONL with NeMo's keys plus `id`, `prompt` and `response`.

One row: {"id": "a1", "audio_filepath": "wav/a1.flac", "duration": 3.2, "offset": 0.0, "text": "...",
"prompt": "What is said?", "response": "...", "choices": ["...", "..."]}. Only `audio_filepath` is
required. `question` and `answer` are read as `prompt` and `response`; keys that coat does not know
are kept under their own names. Relative paths are relative to the manifest.
"""

import gzip
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

from coat.manifests import files
from coat.manifests.errors import InputError
from coat.manifests.utterance import Utterance

KNOWN = {"id", "audio_filepath", "offset", "duration", "text", "prompt", "response", "question", "answer", "choices"}
SHOWN = 20  # problems in one message
LONGEST_S = 1e9  # 30 years: what is longer (or NaN) is not a time in a file


@dataclass(frozen=True)
class Problem:
    """One line about one row of one file. `row` counts lines from 1; 0 is the file as a whole."""

    file: str
    row: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.message}" if self.row else f"{self.file}: {self.message}"


class ManifestError(InputError):
    """A manifest that cannot be read as one. `problems` has every row at fault."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(p) for p in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"... and {len(problems) - SHOWN} more rows")
        super().__init__("\n".join(lines))


class Manifest(Sequence[Utterance]):
    """The utterances of a corpus, in the order of the file."""

    def __init__(self, utterances: Iterable[Utterance], path: str = "") -> None:
        self.utterances = tuple(utterances)
        self.path = path

    @classmethod
    def read(cls, path: str) -> "Manifest":
        """Read a `.jsonl` (or `.jsonl.gz`) file. ManifestError lists every row that is not one."""
        path = str(path)
        utterances, problems = parse(path)
        if problems:
            raise ManifestError(problems)
        return cls(utterances, path)

    def write(self, path: str) -> None:
        """Write all rows at once; the file appears whole or not at all."""
        write_rows(path, (u.to_row() for u in self))

    @property
    def seconds(self) -> float:
        """Sum of the durations that the rows state."""
        return math.fsum(u.duration or 0.0 for u in self)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> "Manifest": ...
    def __getitem__(self, index: int | slice) -> "Utterance | Manifest":
        return Manifest(self.utterances[index], self.path) if isinstance(index, slice) else self.utterances[index]

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def __repr__(self) -> str:
        return f"Manifest({self.path!r}, {len(self)} utterances, {self.seconds / 3600:.2f} h)"


def write_rows(path: str, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSONL; the file appears whole or not at all."""
    files.write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def parse(path: str) -> tuple[list[Utterance], list[Problem]]:
    """Rows that can be read, and a problem for each that cannot. InputError where there is no file."""
    base = files.parent(files.absolute(path))  # a worker elsewhere has another working directory
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for row, line in read_lines(path, problems):
        try:
            utterances.append(parse_row(json.loads(line), base, row))
        except json.JSONDecodeError as e:
            problems.append(Problem(path, row, f"not JSON ({e.msg} at column {e.colno}); expected one object a line"))
        except RecursionError:
            problems.append(Problem(path, row, "not JSON that can be read (nested too deep)"))
        except ValueError as e:
            problems.append(Problem(path, row, str(e)))
    if not utterances and not problems:
        problems.append(Problem(path, 0, "no rows; expected one JSON object a line"))
    return name_unnamed(utterances), sorted(problems, key=lambda p: p.row)


def read_lines(path: str, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """Numbered lines that hold something; what is not UTF-8 or was half written goes to `problems`."""
    try:
        data = files.read_bytes(path)
    except FileNotFoundError as e:
        raise InputError(f"{path}: no such manifest") from e
    except (IsADirectoryError, PermissionError) as e:
        raise InputError(f"{path}: cannot be read as a manifest ({e.strerror or e})") from e
    try:
        data = gzip.decompress(data) if path.endswith(".gz") else data
    except (OSError, EOFError) as e:
        raise InputError(f"{path}: not a whole gzip file ({e})") from e
    if b"\0" in data[:1024]:
        raise InputError(f"{path}: not a text file; expected JSONL, one object a line")
    lines = data.split(b"\n")
    for row, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            line = raw.decode("utf-8-sig" if row == 1 else "utf-8")
        except UnicodeDecodeError as e:
            problems.append(Problem(path, row, f"not UTF-8 (byte {e.start} of the line); save the file as UTF-8"))
            continue
        if row == len(lines) and not is_json(line):
            problems.append(Problem(path, row, "the last line is half written; write the manifest again or drop it"))
            continue
        yield row, line


def is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def parse_row(data: Any, base: str, row: int) -> Utterance:
    """One utterance; ValueError says what is wrong with the row. Its id may still be empty."""
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, found {type(data).__name__}")
    audio = data.get("audio_filepath")
    if not isinstance(audio, str) or not audio:
        raise ValueError("no audio_filepath; expected the path of an audio file")
    prompt, response = either(data, "prompt", "question"), either(data, "response", "answer")
    for name, value in (("text", data.get("text")), ("prompt", prompt), ("response", response)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is {type(value).__name__}; expected a string")
    identity = data.get("id", "")
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise ValueError(f"id is {type(identity).__name__}; expected a string")
    choices = data.get("choices") or ()
    if not isinstance(choices, list | tuple) or not all(isinstance(c, str) for c in choices):
        raise ValueError("choices must be a list of strings")
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as e:  # rather here than when it is written
        raise ValueError("half a surrogate pair (\\ud8..) is not text; write the row again") from e
    return Utterance(
        id=str(identity),
        audio=files.resolve(base, audio),
        audio_filepath=audio,
        offset=seconds(data, "offset") or 0.0,
        duration=seconds(data, "duration"),
        text=data.get("text"),
        prompt=prompt,
        response=response,
        choices=tuple(choices),
        extra={k: v for k, v in data.items() if k not in KNOWN},
        row=row,
    )


def either(data: dict[str, Any], name: str, other: str) -> Any:
    return data[name] if data.get(name) is not None else data.get(other)


def seconds(data: dict[str, Any], name: str) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LONGEST_S:
        raise ValueError(f"{name} is {str(value)[:40]!r}; expected seconds as a number")
    return float(value)


def name_of_audio(u: Utterance) -> str:
    return u.audio_filepath.rsplit(".", 1)[0]


def name_unnamed(utterances: list[Utterance], name: Callable[[Utterance], str] = name_of_audio) -> list[Utterance]:
    """Rows without an id are named by their audio and offset, `#2`, `#3` ... where that is taken."""
    taken = {u.id for u in utterances if u.id}
    repeats: Counter[str] = Counter()
    named = []
    for u in utterances:
        if not u.id:
            stem = identity = name(u) + (f"@{u.offset:.3f}" if u.offset else "")
            while identity in taken:
                repeats[stem] += 1
                identity = f"{stem}#{repeats[stem] + 1}"
            taken.add(identity)
            u = replace(u, id=identity)
        named.append(u)
    return named
