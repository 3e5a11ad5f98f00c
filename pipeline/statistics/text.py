"""Statistics in words and rows, for the terminal and the page."""

import numpy as np
from numpy.typing import NDArray

from coat.pipeline.drawing.text import short
from coat.pipeline.statistics.statistics import QUANTILES, Statistics

MOST_NAMED = 12  # dead dimensions, or with NaN
FEWEST = 8  # dimensions whose components say something; fewer are channels on scales of their own
TOP = 3  # events that stand for all in one line
SHARES = (0.9, 0.95, 0.99, 0.999)  # of the variance
COLUMNS = ("dimension", "mean", "std", "min", *(f"{100 * q:g} %" for q in QUANTILES), "max", "NaN", "Inf")


def name_of(found: Statistics, dimension: int) -> str:
    return found.spec.channels[dimension] if found.spec.channels else str(dimension)


def most_telling(found: Statistics, most: int) -> NDArray[np.int64]:
    """Dimensions to show where there is not room for all: the most frequent events, else what moves most."""
    if found.spec.dim <= most:
        return np.arange(found.spec.dim)
    weight_D = found.sums.std_D if found.share_D is None else found.share_D
    return np.argsort(-weight_D, kind="stable")[:most]


def problems(found: Statistics) -> list[str]:
    """What a trainer should know of before it learns from these."""
    s = found.sums
    if not s.frames:
        return ["no frames: nothing was extracted"]
    marked = {
        "never move, or no more than float16 rounds": np.flatnonzero(found.dead_D),
        "hold NaN": np.flatnonzero(s.nan_D),
        "hold infinities": np.flatnonzero(s.inf_D),
    }
    return [
        f"{len(at)} of {found.spec.dim} dimensions {what}: "
        + ", ".join(name_of(found, d) for d in at[:MOST_NAMED])
        + (", …" if len(at) > MOST_NAMED else "")
        for what, at in marked.items()
        if len(at)
    ]


def facts(found: Statistics) -> dict[str, str]:
    s = found.sums
    said = {"audio": f"{found.seconds / 3600:.3f} h", "frames": f"{s.frames:,} in {found.units} units"}
    if found.voiced is not None:
        said["voiced"] = percent(found.voiced)
    if found.pca is not None and found.spec.dim >= FEWEST:
        said["variance"] = ", ".join(f"{100 * share:g} % in {found.pca.components_for(share)}" for share in SHARES)
        said["variance"] += f" of {found.spec.dim} components"
    if not found.exact:
        said["quantiles"] = "of a histogram: right to 1/512 of the dimension's range"
    return said


def what_is_there(found: Statistics) -> str:
    """How much is voiced, or the most frequent events; a dash for other kinds."""
    if found.voiced is not None:
        return f"voiced {percent(found.voiced)}"
    share_D = found.share_D
    if share_D is None:
        return "-"
    return ", ".join(
        f"{name_of(found, d)} {percent(float(share_D[d]))}" for d in np.argsort(-share_D, kind="stable")[:TOP]
    )


def table_of(found: Statistics, most: int) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, a dimension a row, at most so many."""
    s = found.sums
    share_D = found.share_D
    columns = [*COLUMNS] if share_D is None else [*COLUMNS, "there"]
    rows = []
    for d in most_telling(found, most):
        values = [s.mean_D[d], s.std_D[d], s.low_D[d], *found.quantiles_QD[:, d], s.high_D[d]]
        row = [name_of(found, d), *(short(v) if np.isfinite(v) else "–" for v in values)]
        row += [f"{s.nan_D[d]:,}", f"{s.inf_D[d]:,}"]
        rows.append(row if share_D is None else [*row, percent(float(share_D[d]))])
    return columns, rows


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100 * share:.2g} %"
