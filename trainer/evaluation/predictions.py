"""What was asked and answered, a line a row.

E/predictions.jsonl   answers to the rows as they are
E/variants.jsonl      the same rows asked otherwise: with other audio or silence, choices in another order
E/timings.jsonl       seconds of each of them. Apart, since all else is the same bytes whenever it is run
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from coat.manifests import InputError

PREDICTIONS, VARIANTS, TIMINGS = "predictions.jsonl", "variants.jsonl", "timings.jsonl"
SCORES = "scores.jsonl"
Key = tuple[str, str, str]  # benchmark, id and variant: what one line is about


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """One answer. `answer` None: it failed, and `error` says why."""

    benchmark: str
    id: str
    variant: str = ""  # "": the row as it is
    prompt: str = ""  # as sent, beside the student's own chat template; "" where someone else asked
    choices: tuple[str, ...] = ()  # in the order that was sent
    audio: str = ""  # the id of the row whose audio was heard, where it is another's
    answer: str | None = None  # raw
    choice: str | None = None  # parsed by the strict rule
    prompt_tokens: int | None = None  # with audio, and without the block
    block_tokens: int | None = None
    answer_tokens: int | None = None
    cut: bool = False  # it came to max_new_tokens before its end
    error: str | None = None

    @property
    def key(self) -> Key:
        return self.benchmark, self.id, self.variant

    def to_line(self) -> str:
        return to_line(self)

    @classmethod
    def of_line(cls, line: str) -> Self:
        """ValueError where it is none."""
        data = json.loads(line)
        if not isinstance(data, dict) or not isinstance(data.get("benchmark"), str) or "id" not in data:
            raise ValueError("expected a line that `coat evaluate` wrote")
        known: dict[str, Any] = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        known["choices"] = tuple(known.get("choices") or ())
        return cls(**known)


def read_predictions(folder: Path, name: str = PREDICTIONS) -> dict[Key, Prediction]:
    """By key; empty where the file is not there. InputError names the line that is none."""
    path, found = folder / name, {}
    for number, line in enumerate(lines_of(path), start=1):
        try:
            prediction = Prediction.of_line(line)
        except (ValueError, TypeError) as e:
            raise InputError(f"{path}:{number}: not a prediction ({e})") from e
        found[prediction.key] = prediction
    return found


def lines_of(path: Path) -> Iterator[str]:
    """Whole lines; one that a crash cut short is left out."""
    if path.exists():
        with path.open(encoding="utf-8", newline="\n") as f:
            yield from (line for line in f if line.endswith("\n"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Of one answer. Rows of a batch share its seconds: `rows` says how many they were."""

    benchmark: str
    id: str
    variant: str = ""
    seconds: float  # of the batch, until its last answer
    rows: int = 1

    def to_line(self) -> str:
        return to_line(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowScore:
    """A line of E/scores.jsonl: how one row was scored, for reports, intervals and comparisons.

    `official` and `strict`: right or wrong, with the reason. `sums` as in Verdict, by rule. Rows with one `audio` are
    no independent draws.
    """

    benchmark: str
    id: str
    audio: str  # what was heard: equal for rows that share it; "" for text alone
    groups: Mapping[str, str]
    status: str  # answered, missing, failed or empty
    official: bool
    strict: bool
    unparsed: bool  # by the strict rule, of those that are answered
    official_why: str
    strict_why: str
    official_sums: Mapping[str, tuple[float, float]]  # with accuracy
    strict_sums: Mapping[str, tuple[float, float]]

    def to_line(self) -> str:
        return to_line(self)

    @classmethod
    def of_line(cls, line: str) -> Self:
        return cls(**json.loads(line))


def to_line(record: Any) -> str:
    """Fields in their order; `asdict` would copy them, which takes ten times as long."""
    return json.dumps({name: getattr(record, name) for name in record.__slots__}, ensure_ascii=False) + "\n"


def read_scores(folder: Path) -> list[RowScore]:
    """InputError where there are none, or a line is none."""
    path, found = folder / SCORES, []
    if not path.exists():
        raise InputError(f"{folder}: no {SCORES}; expected a folder that `coat evaluate` has finished")
    for number, line in enumerate(lines_of(path), start=1):
        try:
            found.append(RowScore.of_line(line))
        except (ValueError, TypeError) as e:
            raise InputError(f"{path}:{number}: not a score ({e})") from e
    return found
