"""Scores of rows as a matrix of sums, and what is made of totals of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coat.trainer.evaluation.predictions import RowScore
from coat.trainer.evaluation.statistics.bootstrap import FromTotals

RULES = ("official", "strict")


@dataclass(frozen=True)
class RowSums:
    """`values` [rows, S], where S counts the over and the under of each sum of each rule, in the order of `names`.

    A row without a sum (one that needs a judge, and there was none) adds nothing to it, and is in no denominator of it.
    """

    names: tuple[tuple[str, str], ...]  # rule and sum
    values: NDArray[np.float64]

    @classmethod
    def of(cls, scores: Sequence[RowScore], names: Sequence[tuple[str, str]] | None = None) -> "RowSums":
        """`names`: those of another model's rows, so that both have the same columns."""
        kept = tuple(names) if names is not None else sum_names(scores)
        column = {name: 2 * i for i, name in enumerate(kept)}
        values = np.zeros((len(scores), 2 * len(kept)))
        for row, score in enumerate(scores):
            for rule in RULES:
                for name, (over, under) in sums_of(score, rule).items():
                    at = column[rule, name]
                    values[row, at : at + 2] = over, under
        return cls(kept, values)

    def figures(
        self, totals: NDArray[np.float64], from_totals: FromTotals
    ) -> dict[str, dict[str, NDArray[np.float64]]]:
        """By rule and metric, `[R]`, of totals `[R, S]`. NaN where nothing is below the line: no rows were drawn."""
        found = {}
        for rule in RULES:
            parts = {
                name: (totals[:, 2 * i], np.where(totals[:, 2 * i + 1] == 0, np.nan, totals[:, 2 * i + 1]))
                for i, (of, name) in enumerate(self.names)
                if of == rule
            }
            found[rule] = {metric: np.asarray(values) for metric, values in from_totals(parts).items()}
        return found


def sum_names(*scores: Sequence[RowScore]) -> tuple[tuple[str, str], ...]:
    """In the order in which they are met, for each rule."""
    met = {(rule, name): None for rule in RULES for rows in scores for one in rows for name in sums_of(one, rule)}
    return tuple(met)


def sums_of(score: RowScore, rule: str) -> Mapping[str, tuple[float, float]]:
    return score.official_sums if rule == "official" else score.strict_sums


def group_masks(scores: Sequence[RowScore]) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Rows of each group, by its key and value, in their order; all of them come first, under ("", "")."""
    found = {("", ""): np.ones(len(scores), bool)}
    for i, score in enumerate(scores):
        for key, value in score.groups.items():
            found.setdefault((key, value), np.zeros(len(scores), bool))[i] = True
    keys = list(dict.fromkeys(key for key, _ in found))
    return dict(sorted(found.items(), key=lambda one: (keys.index(one[0][0]), one[0][1])))
