"""Records of any table to rows in coat's native form: which column is what, and values as JSON has them."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from coat.manifests.corpus.parsing import finite
from coat.manifests.errors import InputError
from coat.manifests.sources.records import StoredBytes

# Native key: the names that corpora give it, the likeliest first. Case does not count.
ALIASES = {
    "id": ("id", "utt_id", "utterance_id", "utt", "uid", "segment_id", "key"),
    "audio_filepath": (
        "audio_filepath",
        "audio_path",
        "audio",
        "audio_file",
        "audio_filename",
        "path",
        "wav",
        "wav_path",
        "file",
        "file_name",
        "filename",
        "filepath",
    ),
    "offset": ("offset", "start", "start_time", "start_s", "begin"),
    "duration": ("duration", "duration_s", "duration_sec", "dur", "seconds"),
    "end": ("end", "end_time", "end_s", "stop"),  # of the span; gives the duration
    "text": ("text", "sentence", "transcript", "transcription", "transcripts"),
    "prompt": ("prompt", "question", "query", "instruction"),
    "response": ("response", "answer", "output"),
    "choices": ("choices", "options"),
}
NUMBERS = ("offset", "duration", "end")
TEXTS = ("text", "prompt", "response")
# Of what is asked of every value, what most are first.
NUMBER_TYPES, SCALARS, BINARY = (int, float), (str, bool, int), (bytes, bytearray, memoryview, StoredBytes)
# Names that a native row gives a meaning; a column that is called so without having it is renamed.
RESERVED = {*ALIASES, "question", "answer"} - {"end"}


@dataclass(frozen=True)
class EmbeddedAudio:
    """Audio that lies in the table itself, and has no address."""

    data: bytes
    path: str  # the name that it once had, or empty


@dataclass(frozen=True)
class AudioInPlace:
    """Audio that is read where it lies."""

    address: str
    path: str  # as EmbeddedAudio has it


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds which native key."""

    column_of_key: Mapping[str, str]  # native key: column

    @classmethod
    def detect(cls, names: Iterable[str], column_map: Mapping[str, str]) -> "Columns":
        """By ALIASES, where `column_map` does not say."""
        return columns_of(tuple(names), tuple(column_map.items()))

    def to_native(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """One row; ValueError says what is wrong with it. Columns without a native key keep their names."""
        values = {native: native_value(native, record.get(column)) for native, column in self.column_of_key.items()}
        row = {native: value for native, value in values.items() if value is not None}
        if "audio_filepath" not in row and is_text_alone(record, row):
            row["audio_filepath"] = None
        if "audio_filepath" not in row:
            has = ", ".join(map(str, record)) or "none"
            raise ValueError(f"no audio; --map audio_filepath=COLUMN names its column (here: {has})")
        used = {column for native, column in self.column_of_key.items() if native in row}
        end = row.pop("end", None)
        if "duration" in row:
            used.discard(self.column_of_key.get("end", ""))
        elif end is not None:
            row["duration"] = round(end - row.get("offset", 0.0), 6)
        return row | other_values(record, used)


@lru_cache(maxsize=4096)  # rows of a table have few sets of names
def columns_of(names: tuple[str, ...], column_map: tuple[tuple[str, str], ...]) -> Columns:
    mapped = {column for _, column in column_map}
    lower = {plain(name): name for name in reversed(names) if name not in mapped}
    found = {key: lower[alias] for key, aliases in ALIASES.items() for alias in reversed(aliases) if alias in lower}
    return Columns(found | dict(column_map))


def is_text_alone(record: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """A row that says itself that it has no audio, and has what a row without audio needs."""
    return "audio_filepath" in record and record["audio_filepath"] is None and {"prompt", "response"} <= row.keys()


def check_column_map(column_map: Mapping[str, str]) -> None:
    """InputError where `--map` names what is not a native key."""
    for native, column in column_map.items():
        if native not in ALIASES:
            raise InputError(f"--map {native}={column}: no such key; expected one of {', '.join(ALIASES)}")


def other_values(record: Mapping[str, Any], used: Iterable[str]) -> dict[str, Any]:
    """The other values of a record under their own names; those of native keys as `original_<name>`."""
    others = {str(k): json_value(v) for k, v in record.items() if k not in used}
    found: dict[str, Any] = {}
    for name, value in others.items():
        if value is None or (name in RESERVED and value == ""):
            continue
        kept = f"original_{name}" if name in RESERVED else name
        while kept != name and kept in others:  # a column that has this very name
            kept = f"original_{kept}"
        found[kept] = value
    return found


def native_value(native: str, value: Any) -> Any:
    """The value as a native row has it; None where there is none."""
    if native == "audio_filepath":
        return audio_value(value) if value is not None and value != "" else None
    value = json_value(value)
    if value is None or (value == "" and native not in TEXTS):
        return None
    if native == "choices":
        return list_value(value)
    if native in NUMBERS:
        return number_value(native, value)
    if isinstance(value, NUMBER_TYPES) and not isinstance(value, bool):
        value = number_text(value)
    if not isinstance(value, str):
        raise ValueError(
            f"{native} is {type(value).__name__}; expected a string (--map {native}=COLUMN chooses another)"
        )
    return value


def plain(name: str) -> str:
    """A column's name without its case, and what people put between words: `File Name` is `file_name`."""
    return re.sub(r"[\s\-]+", "_", str(name).strip()).lower()


def number_text(value: int | float) -> str:
    """Every digit of it. A whole number that a table holds as a float (for some rows lack it) has no fraction."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else str(value)


def audio_value(value: Any) -> str | EmbeddedAudio | AudioInPlace:
    """A path, or the file's bytes or their address: `{bytes, path}` as Hugging Face stores audio, or bytes alone."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"{len(value)} audio files in one row; expected one")
        return audio_value(value[0])
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path") or ""
        if not data and not path:
            raise ValueError(f"audio has neither bytes nor a path (it has {', '.join(map(str, value)) or 'nothing'})")
        if isinstance(data, StoredBytes):
            return AudioInPlace(data.address, str(path))
        return EmbeddedAudio(bytes(data), str(path)) if data else str(path)
    if isinstance(value, StoredBytes):
        return AudioInPlace(value.address, "")
    if is_binary(value):
        return EmbeddedAudio(bytes(value), "")
    raise ValueError(f"audio is {type(value).__name__}; expected a path")


def number_value(native: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{native} is {str(value)[:40]!r}; expected seconds as a number") from e


def list_value(value: Any) -> list[str]:
    """Choices: a list, JSON of a list, or text with `|` between them."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else [c.strip() for c in value.split("|")]
        except ValueError as e:
            raise ValueError(f"choices are not a JSON list ({value[:40]!r})") from e
    if not isinstance(value, list):
        raise ValueError(f"choices are {type(value).__name__}; expected a list")
    return [str(c) for c in value]


def is_binary(value: Any) -> bool:
    return isinstance(value, BINARY)


def json_value(value: Any) -> Any:
    """As JSON has it: NaN and bytes are no value, infinities and whatever else is unknown are text, dates of ISO."""
    if value is None or isinstance(value, SCALARS):
        return value
    if isinstance(value, float):
        return finite(value)
    if is_binary(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(v) for v in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
