"""Accuracies of the study, and their intervals.

Intervals are 95 %, by a bootstrap over seeds and *sources* at once: instruments, voices, speakers, recordings of each
kind are drawn again, with all their clips, since an arm may hear one instrument well and another not. Differences of
arms are taken draw by draw.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_model.clips import TASKS
from benchmarks.real_model.study import mean_accuracy

DRAWS = 2000
Result = dict[str, Any]
Draws = NDArray[np.float64]  # [draws]


class Asked:
    """The rows of the test by task, and how often each draw has each: its sources are drawn again, by kind of clip."""

    def __init__(self, rows: Sequence[Mapping[str, str]], draws: int = DRAWS) -> None:
        self.sources = {task: [r["source"] for r in rows if r["task"] == task] for task in TASKS}
        rng, self.count = np.random.default_rng(0), {}
        of_kind: dict[str, list[str]] = {}
        for row in rows:
            of_kind.setdefault(row["kind"], []).append(row["source"])
        for kind in of_kind:
            names = sorted(set(of_kind[kind]))
            drawn = rng.multinomial(len(names), [1 / len(names)] * len(names), size=draws)
            self.count |= {name: drawn[:, i] for i, name in enumerate(names)}
        self.draws = draws

    def weights(self, task: str) -> NDArray[np.float64]:
        """`[draws, rows of the task]`"""
        return np.stack([self.count[source] for source in self.sources[task]], 1).astype(float)

    def drawn(self, results: Sequence[Result], tasks: Sequence[str]) -> Draws:
        """Mean accuracy over tasks; seeds are drawn again, too, alike for all arms."""
        seeds = np.random.default_rng(1).integers(len(results), size=(self.draws, len(results)))
        by_task = []
        for task in tasks:
            hits_SN = np.array([[int(c) for c in r["hits"]["test"][task]] for r in results], float)
            weights_DN = self.weights(task)
            of_seed_DS = weights_DN @ hits_SN.T / weights_DN.sum(1, keepdims=True)
            by_task.append(np.take_along_axis(of_seed_DS, seeds, 1).mean(1))
        return np.mean(by_task, 0)


def accuracy(results: Sequence[Result], tasks: Sequence[str], rows: str = "test") -> float:
    return float(np.mean([mean_accuracy({task: r["hits"][rows][task] for task in tasks}) for r in results]))
