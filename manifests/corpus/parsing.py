"""One row of a manifest, checked key by key: the parser that explains what is wrong."""

import math
import re
from typing import Any

from coat.manifests import addresses, storage
from coat.manifests.corpus.utterance import Utterance, parse_turns

KNOWN_KEYS = {
    "id",
    "audio_filepath",
    "offset",
    "duration",
    "text",
    "prompt",
    "response",
    "question",
    "answer",
    "choices",
}
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
HOLDS_TEXT = (dict, list)
LONGEST_S = 1e9  # 30 years: what is longer (or NaN) is not a time in a file


def parse_row(data: Any, base: str, row: int) -> Utterance:
    """One utterance; ValueError says what is wrong with the row. Its id may still be empty."""
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, found {type(data).__name__}")
    audio = data.get("audio_filepath")
    if "audio_filepath" in data and audio is None:
        check_text_only(data)
    elif not isinstance(audio, str) or not audio:
        raise ValueError("no audio_filepath; expected the path of an audio file, or null where there is text alone")
    if audio and "#" in audio and not addresses.is_usual(audio):
        try:
            addresses.parse(audio)
        except ValueError as e:
            raise ValueError(f"audio_filepath is {audio[:200]!r}: {e}") from e
    prompt, response = first_of(data, "prompt", "question"), first_of(data, "response", "answer")
    for name, value in (("text", data.get("text")), ("prompt", prompt), ("response", response)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} is {type(value).__name__}; expected a string")
    identity = "" if data.get("id") is None else data["id"]
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise ValueError(f"id is {type(identity).__name__}; expected a string")
    choices = data.get("choices") or ()
    if choices and (not isinstance(choices, list | tuple) or not all(isinstance(c, str) for c in choices)):
        raise ValueError("choices must be a list of strings")
    parse_turns(data.get("turns"))
    try:
        check_text(data)
    except UnicodeEncodeError as e:  # rather here than when it is written
        raise ValueError("half a surrogate pair (\\ud8..) is not text; write the row again") from e
    return Utterance(
        id=str(identity),
        audio=storage.resolve(base, audio) if audio else "",
        audio_filepath=audio or "",
        offset=seconds(data, "offset") or 0.0,
        duration=seconds(data, "duration") if audio else 0.0,
        text=data.get("text"),
        prompt=prompt,
        response=response,
        choices=tuple(choices),
        extra={k: finite(v) for k, v in data.items() if k not in KNOWN_KEYS},
        row=row,
    )


def check_text(value: Any) -> None:
    """UnicodeEncodeError where a string in a dict or list, at any depth, cannot be UTF-8."""
    if isinstance(value, dict):
        check_text(list(value))
        value = value.values()
    for inner in value:
        if isinstance(inner, str):
            if not inner.isascii():
                inner.encode()
        elif isinstance(inner, HOLDS_TEXT):
            check_text(inner)


def finite(value: Any) -> Any:
    """A value as JSON has it, which lacks what Python's writers put there: NaN is no value, infinities are text."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    if isinstance(value, list):
        return [finite(v) for v in value]
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    return value


def check_text_only(data: dict[str, Any]) -> None:
    """ValueError where a row without audio has nothing to learn, or a span."""
    if data.get("id") in (None, ""):
        raise ValueError("no id; a row without audio needs one")
    if first_of(data, "prompt", "question") is None or first_of(data, "response", "answer") is None:
        raise ValueError("audio_filepath is null; a row without audio needs a prompt and a response")
    if data.get("offset") or data.get("duration"):
        raise ValueError("audio_filepath is null, but there is an offset or a duration")


def first_of(data: dict[str, Any], name: str, other: str) -> Any:
    return data[name] if data.get(name) is not None else data.get(other)


def seconds(data: dict[str, Any], name: str) -> float | None:
    value = data.get(name)
    if value is None:
        return None
    if value.__class__ is float and -LONGEST_S <= value <= LONGEST_S:  # most are
        return value + 0.0  # -0.0 is 0.0
    if isinstance(value, str) and NUMBER.fullmatch(value):  # as spreadsheets and shell scripts write it
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LONGEST_S:
        raise ValueError(f"{name} is {str(value)[:40]!r}; expected seconds as a number")
    return float(value) + 0.0  # -0.0 is 0.0
