"""Trivial baselines beside every score: what there is to gain without listening.

Each says one choice of every row, in the form in which the benchmark wants it, and is scored as a student is.
"""

from collections import Counter
from collections.abc import Sequence

from coat.trainer.evaluation.benchmark import Benchmark, QuestionRow
from coat.trainer.evaluation.choices import normalise
from coat.trainer.evaluation.results import Scores

FIRST, LONGEST, MAJORITY = "first choice", "longest choice", "most common answer"
SILENT = "no answer"


def baselines(benchmark: Benchmark, rows: Sequence[QuestionRow]) -> dict[str, Scores]:
    """By name. Of rows without choices there is one alone: to say nothing (a word error rate of 1)."""
    asked = [row for row in rows if row.choices and row.response is not None]
    if not asked:
        nothing = [
            benchmark.nothing(row, "missing") for row in rows if row.response is not None or row.text is not None
        ]
        figures = benchmark.figures(nothing)
        return {SILENT: Scores(official=figures, strict=figures)} if nothing else {}
    common = common_answers(asked)
    picks = {
        FIRST: [0] * len(asked),
        LONGEST: [max(range(len(row.choices)), key=lambda i, row=row: len(row.choices[i])) for row in asked],
        MAJORITY: [most_common(row, common) for row in asked],
    }
    return {name: scores_of(benchmark, asked, indices) for name, indices in picks.items()}


def scores_of(benchmark: Benchmark, rows: Sequence[QuestionRow], indices: Sequence[int]) -> Scores:
    """By the official rule of what is said, and by ours of what is meant."""
    chosen = list(zip(rows, indices, strict=True))
    strict = benchmark.figures([benchmark.chosen(row, i, "said") for row, i in chosen])
    if type(benchmark).official is Benchmark.official:
        return Scores(official=strict, strict=strict)
    return Scores(
        official=benchmark.figures([benchmark.official(row, benchmark.say(row, i)) for row, i in chosen]), strict=strict
    )


def common_answers(rows: Sequence[QuestionRow]) -> Counter[str]:
    return Counter(normalise(row.response or "") for row in rows)


def most_common(row: QuestionRow, common: Counter[str]) -> int:
    """The choice that is most often the answer of the other rows: the majority class, where rows share their
    choices."""
    own = normalise(row.response or "")
    counts = [common[text] - (text == own) for text in map(normalise, row.choices)]
    return counts.index(max(counts))
