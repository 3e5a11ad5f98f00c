"""The contract of a benchmark: where it comes from, what a record is, how it is asked, and how answers are scored.

One file in `benchmarks/` and one line in `registry.py` make a benchmark; a subclass of `Benchmark` in a file of your
own does as well (`--benchmark my.py:Mine`). All of them have multiple choice by default, and override what differs.

Two scores, always. `official` is the benchmark's own rule with its flaws, so that published figures compare.
`strict` is ours (choices.py). An answer that is missing, empty or failed is wrong by both, and counted.
"""

import json
from abc import ABC
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import xxhash

from coat.manifests import InputError, storage
from coat.manifests.sources.formats import FORMATS, JSON, detect_format
from coat.manifests.sources.records import Record
from coat.manifests.sources.tables.json_lines import read_json_records
from coat.trainer.evaluation.choices import named_choice, normalise, same_choice
from coat.trainer.evaluation.templates import AS_IT_IS, AUDIO_FLAMINGO, COAT, COT, Template

ACCURACY = "accuracy"


class QuestionRow(Protocol):
    """A row of a manifest (`Utterance`), or a sample of shards. `response` is the truth: the text of a choice."""

    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def response(self) -> str | None: ...
    @property
    def choices(self) -> tuple[str, ...]: ...
    @property
    def text(self) -> str | None: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Source:
    """Where the official data lies. `revision`: the commit that importer and rule were written against."""

    url: str
    revision: str


@dataclass(frozen=True)
class Published:
    """A figure that someone published, in the unit of `metric` (accuracy: 0..1).

    `where` says by whom and with which prompt, judge or split; `read`: in the source itself, not third-hand.
    """

    model: str
    value: float
    metric: str = ACCURACY
    where: str = ""
    read: bool = True


@dataclass(frozen=True)
class Verdict:
    """What one rule makes of one answer. `why` is one line for whoever looks at the row.

    `sums`: by metric, what the row adds to its numerator and its denominator: {"wer": (errors, words)}. Accuracy is
    added by itself. `unparsed`: the rule could not read the answer, which is then wrong.
    """

    right: bool
    why: str
    choice: str | None = None  # that the rule read out of it
    unparsed: bool = False
    sums: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def parts(self) -> dict[str, tuple[float, float]]:
        return {ACCURACY: (float(self.right), 1.0), **self.sums}


class Benchmark(ABC):
    """Multiple choice, unless overridden. Records that its importer refuses raise ValueError: why, in one line."""

    name: ClassVar[str]
    version: ClassVar[str]  # of the data; named with every score
    licence: ClassVar[str]
    source: ClassVar[Source]
    hub_id: ClassVar[str] = ""  # of the data set on a model hub, where it has one
    rows: ClassVar[int] = 0  # of the data that is meant; 0: nobody said
    hours: ClassVar[float] = 0.0
    note: ClassVar[str] = ""  # one line: where `official` is not what the authors do, and why
    templates: ClassVar[tuple[Template, ...]] = (COAT, AUDIO_FLAMINGO)
    template: ClassVar[str] = COAT.name  # the one that is used where none is named: the authors', if they have one
    groups: ClassVar[tuple[str, ...]] = ()  # keys of manifest rows by which scores are reported
    metrics: ClassVar[tuple[str, ...]] = (ACCURACY,)  # the first is the headline
    published: ClassVar[tuple[Published, ...]] = ()
    # `digest_of_rows` of known data: the version (and split) that it is. Other data is evaluated, and said to be so.
    known_data: ClassVar[Mapping[str, str]] = {}
    prediction_keys: ClassVar[
        tuple[str, ...]
    ] = ()  # of the official prediction files; the first is what its code reads
    max_new_tokens: ClassVar[int] = 256  # of an answer

    # Import: official records to rows of a manifest.

    def records(self, source: str) -> Iterator[Record]:
        """Official records of a file or folder (JSON, JSONL, Parquet, ...), in their order."""
        yield from read_records(source)

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A manifest row: id, audio_filepath (relative to the audio root), prompt, response, choices, and its groups.

        ValueError where the record is not one. A record without an answer (a hidden test set) has no `response`.
        """
        raise InputError(f"{self.name}: there is no importer; give a manifest")

    # Scoring: one answer, then all.

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        """By the authors' rule, as their code does it. `answer` is not empty."""
        return self.strict(row, answer)

    def strict(self, row: QuestionRow, answer: str) -> Verdict:
        """By ours. `answer` is not empty."""
        if not row.choices:
            right = normalise(answer) == normalise(row.response or "")
            return Verdict(right, "the words of the answer" if right else "other words than the answer's", answer)
        named = named_choice(answer, row.choices)
        if named.index is None:
            return Verdict(False, named.why, unparsed=True)
        return self.chosen(row, named.index, named.why)

    def chosen(self, row: QuestionRow, index: int, why: str) -> Verdict:
        """Of an answer that names this choice without doubt."""
        choice = row.choices[index]
        return Verdict(same_choice(choice, row.response or "", row.choices), why, choice)

    def judge_request(self, row: QuestionRow, answer: str) -> str | None:
        """What a judge is asked about an answer that no rule can score; None: a rule scores it.

        Without a judge such a row is left unscored, and counted.
        """
        return None

    def judged(self, row: QuestionRow, judgement: str) -> Verdict:
        """Strictly, by what a judge said. `unparsed`: it cannot be read, and is wrong."""
        raise NotImplementedError(f"{self.name} has no judge")

    def judged_official(self, row: QuestionRow, judgement: str) -> Verdict:
        """By the authors' way of reading what their judge says; where it is not known, as strictly."""
        return self.judged(row, judgement)

    def nothing(self, row: QuestionRow, why: str) -> Verdict:
        """Of an answer that is missing or empty: wrong, in the denominator of every metric."""
        return Verdict(False, why)

    def figures(self, verdicts: Sequence[Verdict]) -> dict[str, float]:
        """Scores of some rows, by metric."""
        totals: dict[str, tuple[float, float]] = {}
        for verdict in verdicts:
            for name, (over, under) in verdict.parts().items():
                before = totals.get(name, (0.0, 0.0))
                totals[name] = before[0] + over, before[1] + under
        return {metric: float(value) for metric, value in self.from_totals(totals).items()}

    def from_totals(self, totals: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
        """Scores by metric, made of the totals of all sums: numbers, or arrays of them (draws of a bootstrap).

        Override for what is no ratio of sums (weighted F1). 0 where a denominator is 0.
        """
        return {name: ratio(over, under) for name, (over, under) in totals.items()}

    def say(self, row: QuestionRow, index: int) -> str:
        """A choice as a student gives it that answers as the authors ask: what trivial baselines say."""
        return row.choices[index]

    def template_named(self, name: str | None) -> Template:
        """The one of that name; None: the benchmark's own; a text with {question} is one itself."""
        by_name = {t.name: t for t in (*self.templates, AS_IT_IS, COT)}
        wanted = name or self.template
        if wanted in by_name:
            return by_name[wanted]
        if "{question}" in wanted:
            return Template.of_text(wanted)
        raise InputError(f"--template {wanted}: {self.name} has {', '.join(by_name)}, or give a text with {{question}}")


def read_records(source: str) -> Iterator[Record]:
    """Of a file or folder, as they stand. InputError where it is not there, or of no form that is read."""
    if not storage.exists(source):
        raise InputError(f"{source}: no such file or folder")
    if source.lower().removesuffix(".gz").endswith(JSON):
        yield from read_json_records(source)
    else:
        yield from FORMATS[detect_format(source)].read(source)


def score(
    benchmark: Benchmark, row: QuestionRow, answer: str | None, judgement: str | None = None
) -> tuple[Verdict, Verdict] | None:
    """Official and strict; None: it needs a judge, and has no judgement. `answer` None: it is missing, or failed."""
    if answer is None or not answer.strip():
        nothing = benchmark.nothing(row, "missing" if answer is None else "empty")
        return nothing, nothing
    if benchmark.judge_request(row, answer) is None:
        return benchmark.official(row, answer), benchmark.strict(row, answer)
    if judgement is None:
        return None
    return benchmark.judged_official(row, judgement), benchmark.judged(row, judgement)


def digest_of_rows(rows: Iterable[QuestionRow]) -> str:
    """Of what is asked and what is right, whatever the order: 32 hex digits. Audio is not in it."""
    parts = sorted(json.dumps([r.id, r.prompt, r.response, list(r.choices), r.text], ensure_ascii=False) for r in rows)
    return xxhash.xxh3_128_hexdigest("\n".join(parts).encode())


def ratio(over: Any, under: Any) -> Any:
    """Of numbers or arrays; 0 where there is nothing below the line."""
    some = np.asarray(under) != 0
    return np.where(some, np.divide(over, np.where(some, under, 1)), 0.0)[()]
