"""Trivial baselines beside every score: what there is to gain without listening.

Each says one choice of every row, in the form in which the benchmark wants it, and is scored as a student is.
"""

from collections import Counter
from collections.abc import Sequence

from coat.trainer.evaluation.benchmark import Benchmark, QuestionRow, score
from coat.trainer.evaluation.choices import normalise
from coat.trainer.evaluation.results import Scores

FIRST, LONGEST, MAJORITY = "first choice", "longest choice", "most common answer"
SILENT = "no answer"


def baselines(benchmark: Benchmark, rows: Sequence[QuestionRow]) -> dict[str, Scores]:
    """By name. Of rows without choices there is one alone: to say nothing (a word error rate of 1)."""
    asked = [row for row in rows if row.choices and row.response is not None]
    if not asked:
        open_rows = [row for row in rows if row.response is not None]
        return {SILENT: scores_of(benchmark, open_rows, [None] * len(open_rows))} if open_rows else {}
    common = common_answers(asked)
    picks = {
        FIRST: [0] * len(asked),
        LONGEST: [max(range(len(row.choices)), key=lambda i, row=row: len(row.choices[i])) for row in asked],
        MAJORITY: [most_common(row, common) for row in asked],
    }
    return {name: scores_of(benchmark, asked, said(benchmark, asked, indices)) for name, indices in picks.items()}


def said(benchmark: Benchmark, rows: Sequence[QuestionRow], indices: Sequence[int]) -> list[str | None]:
    return [benchmark.say(row, i) for row, i in zip(rows, indices, strict=True)]


def scores_of(benchmark: Benchmark, rows: Sequence[QuestionRow], answers: Sequence[str | None]) -> Scores:
    """Rows that only a judge can score are left out."""
    scored = [found for row, answer in zip(rows, answers, strict=True) if (found := score(benchmark, row, answer))]
    official, strict = [one for one, _ in scored], [two for _, two in scored]
    return Scores(official=benchmark.figures(official), strict=benchmark.figures(strict))


def common_answers(rows: Sequence[QuestionRow]) -> Counter[str]:
    return Counter(normalise(row.response or "") for row in rows)


def most_common(row: QuestionRow, common: Counter[str]) -> int:
    """The choice that is most often the answer of the other rows: the majority class, where rows share their choices."""
    own = normalise(row.response or "")
    counts = [common[text] - (text == own) for text in map(normalise, row.choices)]
    return counts.index(max(counts))
