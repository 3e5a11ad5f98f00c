"""Statistics in words and rows, for the terminal and the page."""

import numpy as np
from numpy.typing import NDArray

from coat.drawing.text import short_number
from coat.pipeline.statistics.statistics import QUANTILES, Statistics

MAX_NAMED = 12  # dead dimensions, or with NaN
PCA_FROM_DIM = 8  # dimensions whose components say something; fewer are channels on scales of their own
TOP_EVENTS = 3  # events that stand for all in one line
SHARES = (0.9, 0.95, 0.99, 0.999)  # of the variance
COLUMNS = ("dimension", "mean", "std", "min", *(f"{100 * q:g} %" for q in QUANTILES), "max", "NaN", "Inf")


def dimension_name(stats: Statistics, dimension: int) -> str:
    return stats.spec.channels[dimension] if stats.spec.channels else str(dimension)


def most_informative(stats: Statistics, max_dimensions: int) -> NDArray[np.int64]:
    """Dimensions to show where there is not room for all: the most frequent events, else what moves most."""
    if stats.spec.dim <= max_dimensions:
        return np.arange(stats.spec.dim)
    weight_D = stats.sums.std_D if stats.event_share_D is None else stats.event_share_D
    return np.argsort(-weight_D, kind="stable")[:max_dimensions]


def list_problems(stats: Statistics) -> list[str]:
    """What a trainer should know of before it learns from these."""
    s = stats.sums
    if not s.frames:
        return ["no frames: nothing was extracted"]
    dimensions_by_problem = {
        "never move, or no more than float16 rounds": np.flatnonzero(stats.dead_D),
        "hold NaN": np.flatnonzero(s.nan_D),
        "hold infinities": np.flatnonzero(s.inf_D),
    }
    return [
        f"{len(at)} of {stats.spec.dim} dimensions {what}: "
        + ", ".join(dimension_name(stats, d) for d in at[:MAX_NAMED])
        + (", …" if len(at) > MAX_NAMED else "")
        for what, at in dimensions_by_problem.items()
        if len(at)
    ]


def list_facts(stats: Statistics) -> dict[str, str]:
    s = stats.sums
    lines = {"audio": f"{stats.seconds / 3600:.3f} h", "frames": f"{s.frames:,} in {stats.units} units"}
    if stats.voiced_share is not None:
        lines["voiced"] = percent(stats.voiced_share)
    if stats.pca is not None and stats.spec.dim >= PCA_FROM_DIM:
        lines["variance"] = ", ".join(f"{100 * share:g} % in {stats.pca.components_for(share)}" for share in SHARES)
        lines["variance"] += f" of {stats.spec.dim} components"
    if stats.sample is not None:
        counted = f"{stats.sample.frames:,} of {stats.sample.of_frames:,} frames, of {len(stats.sample.chunks):,} units"
        lines["sampled"] = f"{counted}; least and largest values are those of the sample"
    if not stats.exact:
        lines["quantiles"] = "of a histogram: right to 1/512 of the dimension's range"
    return lines


def event_summary(stats: Statistics) -> str:
    """How much is voiced, or the most frequent events; a dash for other kinds."""
    if stats.voiced_share is not None:
        return f"voiced {percent(stats.voiced_share)}"
    event_share_D = stats.event_share_D
    if event_share_D is None:
        return "-"
    return ", ".join(
        f"{dimension_name(stats, d)} {percent(float(event_share_D[d]))}"
        for d in np.argsort(-event_share_D, kind="stable")[:TOP_EVENTS]
    )


def dimension_table(stats: Statistics, max_dimensions: int) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, a dimension a row, at most so many."""
    s = stats.sums
    event_share_D = stats.event_share_D
    columns = [*COLUMNS] if event_share_D is None else [*COLUMNS, "there"]
    rows = []
    for d in most_informative(stats, max_dimensions):
        values = [s.mean_D[d], s.std_D[d], s.low_D[d], *stats.quantiles_QD[:, d], s.high_D[d]]
        row = [dimension_name(stats, d), *(short_number(v) if np.isfinite(v) else "–" for v in values)]
        row += [f"{s.nan_D[d]:,}", f"{s.inf_D[d]:,}"]
        rows.append(row if event_share_D is None else [*row, percent(float(event_share_D[d]))])
    return columns, rows


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2g} %"
