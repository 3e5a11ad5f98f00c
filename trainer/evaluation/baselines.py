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
MANY = 4  # rows for each of their choices: a set of labels, and no questions with choices of their own


def baselines(benchmark: Benchmark, rows: Sequence[QuestionRow]) -> dict[str, Scores]:
    """By name. Of rows without choices there is one alone: to say nothing (a word error rate of 1)."""
    asked = [row for row in rows if row.choices and row.response is not None]
    if not asked:
        nothing = [
            benchmark.nothing(row, "missing") for row in rows if row.response is not None or row.text is not None
        ]
        figures = benchmark.figures(nothing)
        return {SILENT: Scores(official=figures, strict=figures)} if nothing else {}
    picks = {
        FIRST: [0] * len(asked),
        LONGEST: [max(range(len(row.choices)), key=lambda i, row=row: len(row.choices[i])) for row in asked],
        MAJORITY: common_choices(asked),
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


def common_choices(rows: Sequence[QuestionRow]) -> list[int]:
    """For each row the choice that is most often right: of rows with the same choices, where these are many (the
    majority class); else of all other rows, for which its own answer does not count.
    """
    texts = [tuple(map(normalise, row.choices)) for row in rows]
    answers = [normalise(row.response or "") for row in rows]
    of_set: dict[frozenset[str], Counter[str]] = {}
    for choices, answer in zip(texts, answers, strict=True):
        of_set.setdefault(frozenset(choices), Counter())[answer] += 1
    of_all, picks = Counter(answers), []
    for choices, answer in zip(texts, answers, strict=True):
        shared = of_set[frozenset(choices)]
        many = shared.total() >= MANY * len(choices)
        counts = [shared[text] if many else of_all[text] - (text == answer) for text in choices]
        picks.append(counts.index(max(counts)))
    return picks
