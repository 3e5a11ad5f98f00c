"""Statistics of a target set of any size, out of core with Dask. N frames, D dim, Q quantiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.pipeline.statistics.saved_statistics import read_statistics, save_statistics
from coat.pipeline.statistics.saved_sums import sum_target_set
from coat.pipeline.statistics.statistics import QUANTILES, Statistics
from coat.pipeline.store.target_set import TargetSet

EXACT_VALUES = 2**23  # in a set, up to which it is read again for exact quantiles: 64 MB in float64


def compute_statistics(
    targets: TargetSet,
    covariance: bool = True,
    scheduler: Any = "threads",
    exact_values: int = EXACT_VALUES,
    on_units: Callable[[int], None] = lambda n: None,
) -> Statistics:
    """Of all committed units; frames of units that were there the last time are not read again.

    `scheduler` is Dask's (see `saved_sums.dask_scheduler`). Sets of up to `exact_values` values are read once more
    for exact quantiles.
    """
    set_sums = sum_target_set(targets, covariance, scheduler, on_units)
    sums = set_sums.sums
    exact = sums.frames * targets.spec.dim <= exact_values
    statistics = Statistics(
        spec=targets.spec,
        units=len(targets.done),
        seconds=sum(float(done.get("audio_seconds", 0.0)) for done in targets.done.values()),
        sums=sums,
        quantiles_QD=exact_quantiles(targets, scheduler) if exact else sums.histogram.quantiles(QUANTILES),
        exact=exact,
        units_read=set_sums.units_read,
        dropped_files=set_sums.dropped_files,
    )
    save_statistics(targets, statistics)
    return statistics


def exact_quantiles(targets: TargetSet, scheduler: Any) -> NDArray[np.float64]:
    """NaN where a dimension has no finite value."""
    values_ND = np.asarray(targets.dask().compute(scheduler=scheduler), np.float64)
    quantiles_QD = np.full((len(QUANTILES), targets.spec.dim), np.nan)
    for d in range(targets.spec.dim):
        values_N = values_ND[:, d]
        finite_N = values_N[np.isfinite(values_N)]
        if len(finite_N):
            quantiles_QD[:, d] = np.quantile(finite_N, QUANTILES)
    return quantiles_QD


@dataclass(frozen=True)
class Moments:
    """Per dimension, over all frames of a target set. `mean_D` and `std_D` float64."""

    frames: int
    mean_D: NDArray[np.float64]
    std_D: NDArray[np.float64]


def target_moments(targets: TargetSet) -> Moments:
    """Mean and standard deviation: as saved where the units are the same, else of statistics without a covariance."""
    saved = read_statistics(targets)
    if saved is not None:
        return Moments(saved["frames"], np.array(saved["mean"]), np.array(saved["std"]))
    sums = compute_statistics(targets, covariance=False).sums
    if not sums.frames:
        return Moments(0, np.zeros(targets.spec.dim), np.ones(targets.spec.dim))
    return Moments(sums.frames, sums.mean_D, sums.std_D)
