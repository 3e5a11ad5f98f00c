"""Held-out accuracy of the arms as a picture."""

from pathlib import Path

import numpy as np

from benchmarks.scale_model.arms import ASKED
from benchmarks.scale_model.report_parts import NAMES, REGIMES, Found, hits, resampled

TITLES = {"scratch": "From scratch", "tuned": "Taught, frozen, LoRA"}


def draw(found: Found, file: Path) -> bool:
    """Accuracy by question, with intervals; the line is the majority answer. False where there is nothing yet."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "coat"  # else equal pictures differ in their ids
    from matplotlib import pyplot

    shown = [regime for regime in REGIMES if found.arms(regime, "final")]
    if not shown:
        return False
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5.5 * len(shown), 3.6), squeeze=False, width_ratios=[
        len(ASKED[regime]) + 1 for regime in shown
    ])  # fmt: skip
    for axis, regime in zip(axes[0], shown, strict=True):
        arms, groups = found.arms(regime, "final"), [*([q] for q in ASKED[regime]), list(ASKED[regime])]
        width = 0.8 / len(arms)
        for i, (arm, results) in enumerate(arms.items()):
            values = [hits(results, g) for g in groups]
            means = np.array([v.mean() for v in values])
            ends = np.array([np.percentile(resampled([v])[0], [2.5, 97.5]) for v in values])
            bars = np.abs(ends.T - means)
            axis.bar(np.arange(len(groups)) + i * width - 0.4 + width / 2, means, width, yerr=bars, label=NAMES[arm],
                     error_kw={"elinewidth": 0.8})  # fmt: skip
        floor = next(iter(arms.values()))[0]["majority"]["test"]
        for g, group in enumerate(groups):
            axis.hlines(np.mean([floor[q] for q in group]), g - 0.45, g + 0.45, color="black", linewidth=1)
        axis.set_xticks(range(len(groups)), [*ASKED[regime], "mean"], fontsize=8)
        axis.set_ylim(0, 1)
        axis.set_title(TITLES[regime], fontsize=9)
    axes[0][0].set_ylabel("held-out accuracy")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)
    return True
