"""Predictions to scores: a RowScore a row, and what a benchmark's results are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coat.manifests import Utterance
from coat.trainer.evaluation.benchmark import ACCURACY, Benchmark, QuestionRow, Verdict, score
from coat.trainer.evaluation.predictions import Prediction, RowScore
from coat.trainer.evaluation.results import Counts, PublishedFigure, Scores
from coat.trainer.evaluation.templates import Template


@dataclass(frozen=True)
class ScoredRow:
    """`verdicts`: official and strict; None: unscored, for want of a judge or of a truth."""

    row: QuestionRow
    prediction: Prediction | None
    verdicts: tuple[Verdict, Verdict] | None

    @property
    def status(self) -> str:
        if self.prediction is None or self.prediction.answer is None:
            return "failed" if self.prediction and self.prediction.error else "missing"
        return "answered" if self.prediction.answer.strip() else "empty"


def score_rows(
    benchmark: Benchmark,
    rows: Sequence[Utterance],
    predictions: Mapping[str, Prediction],
    judgements: Mapping[str, str] | None = None,
) -> list[ScoredRow]:
    """Of every row, by its id; those that nobody answered are wrong."""
    scored = []
    for row in rows:
        scored.append(score_row(benchmark, row, predictions.get(row.id), (judgements or {}).get(row.id)))
    return scored


def score_row(
    benchmark: Benchmark, row: QuestionRow, prediction: Prediction | None, judgement: str | None = None
) -> ScoredRow:
    answer = prediction.answer if prediction else None
    return ScoredRow(row, prediction, score(benchmark, row, answer, judgement) if has_truth(row) else None)


def has_truth(row: QuestionRow) -> bool:
    """A row of a hidden test set has none: its answer is written, and scored elsewhere."""
    return row.response is not None or (row.prompt is None and row.text is not None)


def row_score(benchmark: Benchmark, label: str, scored: ScoredRow, audio: str) -> RowScore | None:
    """None: unscored."""
    if scored.verdicts is None:
        return None
    official, strict = scored.verdicts
    return RowScore(
        benchmark=label,
        id=scored.row.id,
        audio=audio,
        groups=groups_of(benchmark, scored.row),
        status=scored.status,
        official=official.right,
        strict=strict.right,
        unparsed=strict.unparsed and scored.status == "answered",
        official_why=official.why,
        strict_why=strict.why,
        official_sums=official.parts(),
        strict_sums=strict.parts(),
    )


def groups_of(benchmark: Benchmark, row: QuestionRow) -> dict[str, str]:
    return {key: str(row.extra[key]) for key in benchmark.groups if row.extra.get(key) not in (None, "")}


def counts(benchmark: Benchmark, scored: Sequence[ScoredRow]) -> Counts:
    """Of these rows, with their scores."""
    with_verdicts = [one for one in scored if one.verdicts is not None]
    statuses = [one.status for one in scored]
    return Counts(
        rows=len(scored),
        missing=statuses.count("missing") + statuses.count("failed"),
        failed=statuses.count("failed"),
        empty=statuses.count("empty"),
        unparsed=sum(one.verdicts[1].unparsed for one in with_verdicts if one.verdicts and one.status == "answered"),
        unscored=len(scored) - len(with_verdicts),
        cut=sum(one.prediction.cut for one in scored if one.prediction),
        chance=chance([one.row for one in with_verdicts]),
        scores=Scores(
            official=benchmark.figures([one.verdicts[0] for one in with_verdicts if one.verdicts]),
            strict=benchmark.figures([one.verdicts[1] for one in with_verdicts if one.verdicts]),
        ),
    )


def by_group(benchmark: Benchmark, scored: Sequence[ScoredRow]) -> dict[str, dict[str, Counts]]:
    """By key and value; rows that lack a key are in none of its groups."""
    members: dict[str, dict[str, list[ScoredRow]]] = {}
    for one in scored:
        for key, value in groups_of(benchmark, one.row).items():
            members.setdefault(key, {}).setdefault(value, []).append(one)
    return {
        key: {value: counts(benchmark, rows) for value, rows in sorted(values.items())}
        for key, values in members.items()
    }


def chance(rows: Sequence[QuestionRow]) -> float | None:
    """Of choosing evenly among the choices; None where rows have none."""
    with_choices = [row for row in rows if row.choices]
    return sum(1 / len(row.choices) for row in with_choices) / len(rows) if with_choices else None


def published_of(benchmark: Benchmark) -> list[PublishedFigure]:
    return [
        PublishedFigure(model=p.model, value=p.value, metric=p.metric, where=p.where, read=p.read)
        for p in benchmark.published
    ]


def headline(benchmark: Benchmark, label: str, found: Counts) -> str:
    """One line: what it scored, of how many, and what is missing."""
    metric = next((m for m in benchmark.metrics if m in found.scores.official), ACCURACY)
    official, strict = (s.get(metric) for s in (found.scores.official, found.scores.strict))
    scored = (
        "nothing to score"
        if official is None or strict is None
        else f"{metric} {percent(official)} official, {percent(strict)} strict"
    )
    if metric == ACCURACY and "wer" in found.scores.strict:  # rows that are transcribed are among them
        scored += f", wer {percent(found.scores.strict['wer'])}"
    doubts = [
        f"{count:,} {word}"
        for word in ("missing", "empty", "unparsed", "unscored", "cut")
        if (count := getattr(found, word))
    ]
    version = f" {benchmark.version}" if benchmark.version else ""
    return f"{label}{version}: {scored}, of {found.rows:,} rows" + (f" ({', '.join(doubts)})" if doubts else "")


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def used_template(template: Template) -> dict[str, Any]:
    return {
        "name": template.name,
        "text": template.text,
        "choice": template.choice,
        "between": template.between,
        "open": template.open,
        "at_least": template.at_least,
    }
