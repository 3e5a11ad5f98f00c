"""95 % intervals of the scores of an evaluation, whole and by group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coat.trainer.evaluation.benchmark import ACCURACY, Benchmark
from coat.trainer.evaluation.predictions import RowScore
from coat.trainer.evaluation.results import BenchmarkResults, Intervals
from coat.trainer.evaluation.statistics.bootstrap import DRAWS, Clusters, spread, wilson
from coat.trainer.evaluation.statistics.row_sums import RULES, RowSums, group_masks

Groups = dict[tuple[str, str], Intervals]  # by key and value; ("", ""): all rows


def with_intervals(results: BenchmarkResults, benchmark: Benchmark, scores: Sequence[RowScore]) -> BenchmarkResults:
    """The same results, with the intervals of all rows and of each group."""
    found = intervals_by_group(benchmark, scores)
    groups = {
        key: {
            value: part.model_copy(update={"intervals": found.get((key, value), Intervals())})
            for value, part in values.items()
        }
        for key, values in results.groups.items()
    }
    return results.model_copy(update={"intervals": found.get(("", ""), Intervals()), "groups": groups})


def intervals_by_group(benchmark: Benchmark, scores: Sequence[RowScore]) -> Groups:
    """Of all rows of one benchmark, and of each of their groups. The same rows give the same intervals."""
    if not scores:
        return {}
    sums, masks = RowSums.of(scores), group_masks(scores)
    clusters = Clusters.of([score.audio for score in scores])
    blocks = [clusters.sums(sums.values * mask[:, None]) for mask in masks.values()]  # [C, S] each
    totals = clusters.draw(np.concatenate(blocks, axis=1))  # [R, S of each group]
    width, method = sums.values.shape[1], method_text(len(scores), clusters)
    found: Groups = {}
    for g, (group, mask) in enumerate(masks.items()):
        of_group = totals[:, g * width : (g + 1) * width]
        drawn = sums.figures(of_group, benchmark.from_totals)
        seen = sums.figures(sums.values[mask].sum(axis=0)[None], benchmark.from_totals)
        heard = len(np.unique(clusters.of_row[mask]))
        found[group] = Intervals(
            **{rule: rule_intervals(drawn[rule], seen[rule], heard, benchmark.metrics) for rule in RULES}, method=method
        )
    return found


def rule_intervals(
    drawn: dict[str, NDArray[np.float64]], seen: dict[str, NDArray[np.float64]], clusters: int, metrics: Sequence[str]
) -> dict[str, tuple[float, float]]:
    found = {}
    for metric in dict.fromkeys([*metrics, ACCURACY]):
        if metric not in drawn:
            continue
        share = float(seen[metric][0])
        if metric == ACCURACY and share in (0.0, 1.0):
            found[metric] = wilson(share, clusters)
        elif (interval := spread(drawn[metric])) is not None:
            found[metric] = interval
    return found


def method_text(rows: int, clusters: Clusters) -> str:
    what = f"{rows} rows" if clusters.count == rows else f"{clusters.count} clips, which {rows} rows share"
    return f"percentiles of {DRAWS} bootstrap draws of {what}; Wilson's interval where all rows agree"
