"""Statistics of a target set of any size, out of core with Dask. N frames, D dim, Q quantiles."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.statistics.saved_statistics import read_statistics, save_statistics
from coat.pipeline.statistics.saved_sums import MakeSums, SumsJob, sum_target_set, sum_units, sums_here
from coat.pipeline.statistics.statistics import QUANTILES, Statistics
from coat.pipeline.statistics.sums import Sums
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_reader import dask_units

EXACT_VALUES = 2**23  # in a set, up to which it is read again for exact quantiles: 64 MB in float64


def compute_statistics(
    targets: TargetSet,
    covariance: bool = True,
    scheduler: Any = "threads",
    exact_values: int = EXACT_VALUES,
    on_units: Callable[[int], None] = lambda n: None,
    make_sums: MakeSums = sums_here,
) -> Statistics:
    """Of all committed units; frames of units that were there the last time are not read again.

    `scheduler` is Dask's (see `saved_sums.dask_scheduler`); `make_sums` has workers read the units (`on_workers`). Sets
    of up to `exact_values` values are read once more for exact quantiles.
    """
    set_sums = sum_target_set(targets, covariance, scheduler, on_units, make_sums)
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


def set_frames(targets: TargetSet) -> Any:
    """As `TargetSet.dask`, unit by unit."""
    return dask_units(
        SumsJob.of(targets, sorted(targets.done), covariance=False, scheduler=None).units, targets.spec.dim
    )


def exact_quantiles(targets: TargetSet, scheduler: Any) -> NDArray[np.float64]:
    """NaN where a dimension has no finite value."""
    values_ND = np.asarray(set_frames(targets).compute(scheduler=scheduler), np.float64)
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


def on_workers(workers: int, ray_address: str | None) -> MakeSums:
    """Sums of groups of units by workers of this machine, or on Ray; the values do not depend on where."""

    def make(jobs: Iterable[SumsJob]) -> Iterator[Sums]:
        one_thread = "synchronous" if workers or ray_address else "threads"
        return run_ordered(sum_units, (replace(job, scheduler=one_thread) for job in jobs), workers, ray_address)

    return make


def target_moments(targets: TargetSet, make_sums: MakeSums = sums_here) -> Moments:
    """Mean and standard deviation: as saved where the units are the same, else of statistics without a covariance."""
    saved = read_statistics(targets)
    if saved is not None:
        return Moments(saved["frames"], np.array(saved["mean"]), np.array(saved["std"]))
    sums = compute_statistics(targets, covariance=False, make_sums=make_sums).sums
    if not sums.frames:
        return Moments(0, np.zeros(targets.spec.dim), np.ones(targets.spec.dim))
    return Moments(sums.frames, sums.mean_D, sums.std_D)
