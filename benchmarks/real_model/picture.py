"""Accuracy on sources that no training has, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.real_model.arms import ARMS
from benchmarks.real_model.asked import Asked, Result, accuracy
from benchmarks.real_model.clips import TASKS


def draw(asked: Asked, arms: Mapping[str, Sequence[Result]], majority: Mapping[str, float], file: Path) -> None:
    """By task, with intervals over sources and seeds; the black line is the training's most frequent answer."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "coat"  # else equal pictures differ in their ids
    from matplotlib import pyplot

    groups: list[Sequence[str]] = [*([task] for task in TASKS), TASKS]
    figure, axis = pyplot.subplots(figsize=(9, 3.6))
    width = 0.8 / len(arms)
    for i, (arm, results) in enumerate(arms.items()):
        means = np.array([accuracy(results, tasks) for tasks in groups])
        ends = np.array([np.percentile(asked.drawn(results, tasks), [2.5, 97.5]) for tasks in groups])
        axis.bar(
            np.arange(len(groups)) + i * width - 0.4 + width / 2, means, width, label=f"{arm} {ARMS[arm]}",
            yerr=np.abs(ends.T - means), error_kw={"elinewidth": 0.8},
        )  # fmt: skip
    for at, tasks in enumerate(groups):
        axis.hlines(np.mean([majority[task] for task in tasks]), at - 0.45, at + 0.45, color="black", linewidth=1)
    axis.set_xticks(range(len(groups)), [*TASKS, "mean"], fontsize=8)
    axis.set_ylim(0, 1)
    axis.set_ylabel("accuracy on unheard sources")
    axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
