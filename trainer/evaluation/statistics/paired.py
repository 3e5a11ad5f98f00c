"""Two models on the same rows: their difference, with an interval, and McNemar's test.

Both are scored on the same draws of rows (of clips, where rows share them), so what is hard for both cancels out. Where
an arm has several seeds, its score is their mean, and seeds are drawn again as rows are: the interval then holds for
another training, not for these weights alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coat.manifests import InputError
from coat.trainer.evaluation.benchmark import ACCURACY, Benchmark
from coat.trainer.evaluation.predictions import RowScore
from coat.trainer.evaluation.statistics.bootstrap import DRAWS, SEED, Clusters, spread
from coat.trainer.evaluation.statistics.mcnemar import mcnemar
from coat.trainer.evaluation.statistics.row_sums import RULES, RowSums, group_masks, sum_names


@dataclass(frozen=True)
class Discordant:
    """Rows that one model alone has right, and McNemar's p. Where rows share clips, p counts them as independent."""

    only_first: int
    only_second: int

    @property
    def p(self) -> float:
        return mcnemar(self.only_first, self.only_second)


@dataclass(frozen=True)
class Difference:
    """Second less first, by one rule and metric, in one group (("", ""): all rows)."""

    rule: str
    metric: str
    group: tuple[str, str]
    rows: int
    first: float
    second: float
    interval: tuple[float, float] | None  # None: no draw has rows of both
    discordant: Discordant | None  # None: several seeds, or a metric that is not right or wrong by row

    @property
    def value(self) -> float:
        return self.second - self.first

    @property
    def is_one(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


Arm = Sequence[Sequence[RowScore]]  # a list of rows for each seed


def shared_rows(first: Arm, second: Arm) -> tuple[list[list[RowScore]], list[list[RowScore]], int]:
    """Rows that all of them have, in one order, and how many others there are. InputError where there are none."""
    by_id = [{score.id: score for score in scores} for scores in (*first, *second)]
    kept = [i for i in by_id[0] if all(i in other for other in by_id)]
    if not kept:
        raise InputError("they share no row: ids of the benchmark differ; compare evaluations of the same data")
    rows = [[scores[i] for i in kept] for scores in by_id]
    return rows[: len(first)], rows[len(first) :], len(set().union(*by_id)) - len(kept)


def differences(benchmark: Benchmark, first: Arm, second: Arm) -> list[Difference]:
    """Of rows that both have (`shared_rows`), by rule, metric and group; all rows come first."""
    reference = first[0]
    clusters = Clusters.of([score.audio for score in reference])
    masks = group_masks(reference)
    names = sum_names(*first, *second)
    arms = [[RowSums.of(scores, names) for scores in arm] for arm in (first, second)]
    drawn = [drawn_totals(arm, clusters, masks, i) for i, arm in enumerate(arms)]
    width, found = arms[0][0].values.shape[1], []
    for g, (group, mask) in enumerate(masks.items()):
        block = slice(g * width, (g + 1) * width)
        draws = [arms[0][0].figures(d[:, block], benchmark.from_totals) for d in drawn]
        seen = [mean_figures(benchmark, arm, mask) for arm in arms]
        for rule in RULES:
            for metric in dict.fromkeys([*benchmark.metrics, ACCURACY]):
                a, b = (one[rule].get(metric, np.nan) for one in seen)
                if not np.isfinite([a, b]).all():  # no row of the group has this sum
                    continue
                discordant = None
                if metric == ACCURACY and len(first) == len(second) == 1:
                    discordant = discordant_rows(first[0], second[0], mask, rule)
                interval = spread(draws[1][rule][metric] - draws[0][rule][metric])
                found.append(Difference(rule, metric, group, int(mask.sum()), a, b, interval, discordant))
    return found


def drawn_totals(
    seeds: Sequence[RowSums], clusters: Clusters, masks: dict[tuple[str, str], NDArray[np.bool_]], arm: int
) -> NDArray[np.float64]:
    """Mean totals over the seeds that each draw has, `[R, S of each group]`. All seeds see the same rows of a draw."""
    per_seed = []
    for sums in seeds:
        blocks = [clusters.sums(sums.values * mask[:, None]) for mask in masks.values()]
        per_seed.append(clusters.draw(np.concatenate(blocks, axis=1)))
    if len(per_seed) == 1:
        return per_seed[0]
    rng = np.random.default_rng([SEED, arm])  # other seeds of each arm than of the other
    counts = rng.multinomial(len(per_seed), np.full(len(per_seed), 1 / len(per_seed)), size=DRAWS)  # [R, seeds]
    total = sum(counts[:, s, None] * totals for s, totals in enumerate(per_seed))
    return np.asarray(total) / len(per_seed)


def mean_figures(
    benchmark: Benchmark, seeds: Sequence[RowSums], mask: NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """Of the mean totals of all seeds: for a share, the mean of their shares."""
    totals = np.mean([sums.values[mask].sum(axis=0) for sums in seeds], axis=0)
    found = seeds[0].figures(totals[None], benchmark.from_totals)
    return {rule: {metric: float(v[0]) for metric, v in by_metric.items()} for rule, by_metric in found.items()}


def discordant_rows(
    first: Sequence[RowScore], second: Sequence[RowScore], mask: NDArray[np.bool_], rule: str
) -> Discordant:
    right = [np.array([getattr(s, rule) for s in scores], bool)[mask] for scores in (first, second)]
    return Discordant(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
