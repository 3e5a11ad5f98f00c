"""Statistics of a target set of any size, out of core with Dask. N frames, D dim, Q quantiles."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.statistics.sampling import WHOLE_FRAMES, choose_sample, sample_jobs
from coat.pipeline.statistics.saved_statistics import read_statistics, save_statistics
from coat.pipeline.statistics.saved_sums import MakeSums, SavedSums, SumsJob, sum_target_set, sum_units, sums_here
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
    may_sample: bool = False,
) -> Statistics:
    """Of all committed units; frames of units that were there the last time are not read again.

    `may_sample`: of a sample, where more frames than WHOLE_FRAMES would have to be read; what is known of all frames is
    not replaced by it.

    `scheduler` is Dask's (see `saved_sums.dask_scheduler`); `make_sums` has workers read the units (`on_workers`). Sets
    of up to `exact_values` values are read once more for exact quantiles.
    """
    saved = SavedSums.read(targets, covariance, on_units)
    if may_sample and sum(int(targets.done[unit]["frames"]) for unit in saved.remaining) > WHOLE_FRAMES:
        return sampled_statistics(targets, covariance, make_sums)
    set_sums = sum_target_set(targets, saved, covariance, scheduler, on_units, make_sums)
    sums = set_sums.sums
    exact = sums.frames * targets.spec.dim <= exact_values
    statistics = Statistics(
        spec=targets.spec,
        units=len(targets.done),
        seconds=audio_seconds(targets),
        sums=sums,
        quantiles_QD=exact_quantiles(targets, scheduler) if exact else sums.histogram.quantiles(QUANTILES),
        exact=exact,
        units_read=set_sums.units_read,
        dropped_files=set_sums.dropped_files,
    )
    save_statistics(targets, statistics)
    return statistics


def sampled_statistics(targets: TargetSet, covariance: bool = True, make_sums: MakeSums = sums_here) -> Statistics:
    """Of a sample (see sampling.py), whatever is saved."""
    sample = choose_sample({unit: int(done["frames"]) for unit, done in targets.done.items()})
    sums = Sums.zero(targets.spec.dim, targets.spec.kind, covariance)
    for part in make_sums(sample_jobs(targets, sample, covariance)):
        sums += part
    statistics = Statistics(
        spec=targets.spec,
        units=len(targets.done),
        seconds=audio_seconds(targets),
        sums=sums,
        quantiles_QD=sums.histogram.quantiles(QUANTILES),
        exact=False,
        units_read=tuple(sample.chunks),
        sample=sample,
    )
    current = read_statistics(targets)
    if current is None or "sampled" in current:
        save_statistics(targets, statistics)
    return statistics


def audio_seconds(targets: TargetSet) -> float:
    return sum(float(done.get("audio_seconds", 0.0)) for done in targets.done.values())


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
    """Mean and standard deviation: as saved where the units are the same, else of statistics without a covariance, of a
    sample where the set is large.
    """
    saved = read_statistics(targets)
    if saved is not None:
        return Moments(saved["frames"], np.array(saved["mean"]), np.array(saved["std"]))
    sums = compute_statistics(targets, covariance=False, make_sums=make_sums, may_sample=True).sums
    if not sums.frames:
        return Moments(0, np.zeros(targets.spec.dim), np.ones(targets.spec.dim))
    return Moments(sums.frames, sums.mean_D, sums.std_D)
