"""Statistics of a target set of any size, out of core with Dask. N frames, D dim, C components, Q quantiles.

STORE/<expert>/<fingerprint>/statistics.json      all that is said per dimension, with a digest of its own
STORE/<expert>/<fingerprint>/statistics/pca.npz   mean and axes of the principal components
STORE/<expert>/<fingerprint>/statistics/...       sums per group of units: see `partial_sums.py`
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.statistics.partial_sums import FOLDER, gather
from coat.pipeline.statistics.pca import PCA
from coat.pipeline.statistics.sums import VOICING, Sums
from coat.pipeline.store.target_set import TargetSet

STATISTICS, PCA_FILE = "statistics.json", "pca.npz"
FORMAT = "coat-statistics/1"
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
EXACT_VALUES = 2**23  # in a set, up to which it is read again for exact quantiles: 64 MB in float64
ROUNDING = 2.0**-11  # of float16, relative: a dimension that moves no more than that says nothing


@dataclass(frozen=True)
class Moments:
    """Per dimension, over all frames of a target set. `mean_D` and `std_D` float64."""

    frames: int
    mean_D: NDArray[np.float64]
    std_D: NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    spec: TargetSpec
    units: int
    seconds: float  # of audio
    sums: Sums
    quantiles_QD: NDArray[np.float64]
    exact: bool  # the quantiles; else they are right to a bin of the histogram
    read: tuple[str, ...] = ()  # units whose frames were read now, the others' sums being saved
    dropped: tuple[str, ...] = ()  # saved sums that were stale or damaged

    @property
    def dead_D(self) -> NDArray[np.bool_]:
        """Dimensions that never move, or no more than float16 rounds their mean."""
        return self.sums.std_D <= ROUNDING * np.abs(self.sums.mean_D)

    @property
    def share_D(self) -> NDArray[np.float64] | None:
        """Share of frames in which an event is there or a class the likeliest; None for kinds without events."""
        has = self.spec.kind in ("probabilities", "distribution")
        return self.sums.hits_D / max(self.sums.frames, 1) if has else None

    @property
    def voiced(self) -> float | None:
        """Share of frames; None but for pitch."""
        if self.spec.kind != "pitch":
            return None
        return float(self.sums.hits_D[VOICING]) / max(self.sums.frames, 1)

    @cached_property
    def pca(self) -> PCA | None:
        """None where no covariance was asked for, or there are no frames."""
        if self.sums.scatter_DD is None or not self.sums.whole:
            return None
        return PCA.of(self.sums.centre_D, self.sums.covariance_DD)

    def to_dict(self) -> dict[str, Any]:
        s = self.sums
        data: dict[str, Any] = {
            "format": FORMAT,
            "fingerprint": self.spec.fingerprint,
            "unit_count": self.units,
            "frames": s.frames,
            "seconds": round(self.seconds, 6),
            "mean": numbers(s.mean_D),
            "std": numbers(s.std_D),
            "min": numbers(s.low_D),
            "max": numbers(s.high_D),
            "nan": s.nan_D.tolist(),
            "inf": s.inf_D.tolist(),
            "dead": np.flatnonzero(self.dead_D).tolist() if s.frames else [],
            "quantiles": {f"{q:g}": numbers(row_D) for q, row_D in zip(QUANTILES, self.quantiles_QD, strict=True)},
            "quantile_error": [0.0] * self.spec.dim if self.exact else s.histogram.width_D.tolist(),
        }
        if self.spec.channels:
            data["channels"] = list(self.spec.channels)
        if self.voiced is not None:
            data["voiced_share"] = self.voiced
        if self.share_D is not None:
            data["event_share"] = self.share_D.tolist()
        if self.pca is not None:
            data["variance"] = self.pca.variance_C.tolist()
            data["covariance_frames"] = s.whole
        return data


def statistics(
    targets: TargetSet,
    covariance: bool = True,
    scheduler: Any = "threads",
    exact_values: int = EXACT_VALUES,
    on_units: Callable[[int], None] = lambda n: None,
) -> Statistics:
    """Of all committed units; frames of units that were there the last time are not read again.

    `scheduler` is Dask's (see `partial_sums.scheduler_at`). Sets of up to `exact_values` values are read once more
    for exact quantiles.
    """
    gathered = gather(targets, covariance, scheduler, on_units)
    sums = gathered.sums
    exact = sums.frames * targets.spec.dim <= exact_values
    found = Statistics(
        spec=targets.spec,
        units=len(targets.done),
        seconds=sum(float(done.get("audio_seconds", 0.0)) for done in targets.done.values()),
        sums=sums,
        quantiles_QD=exact_quantiles(targets, scheduler) if exact else sums.histogram.quantiles(QUANTILES),
        exact=exact,
        read=gathered.read,
        dropped=gathered.dropped,
    )
    save(targets, found)
    return found


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


def moments(targets: TargetSet) -> Moments:
    """Mean and standard deviation: as saved where the units are the same, else of statistics without a covariance."""
    known = read_saved(targets)
    if known is not None:
        return Moments(known["frames"], np.array(known["mean"]), np.array(known["std"]))
    sums = statistics(targets, covariance=False).sums
    if not sums.frames:
        return Moments(0, np.zeros(targets.spec.dim), np.ones(targets.spec.dim))
    return Moments(sums.frames, sums.mean_D, sums.std_D)


def save(targets: TargetSet, found: Statistics) -> None:
    """pca.npz first: statistics.json vouches for it."""
    if not found.sums.frames:
        return
    data = found.to_dict() | {"units": units_digest(targets)}
    if found.pca is None:
        storage.remove(storage.join(targets.url, FOLDER, PCA_FILE))
    else:
        sink = io.BytesIO()
        np.savez(sink, mean=found.pca.mean_D, axes=found.pca.axes_CD, variance=found.pca.variance_C)
        storage.write_bytes(storage.join(targets.url, FOLDER, PCA_FILE), sink.getvalue())
        data["pca_xxh3"] = xxhash.xxh3_128_hexdigest(sink.getvalue())
    data["statistics_xxh3"] = own_digest(data)
    storage.write_bytes(storage.join(targets.url, STATISTICS), storage.to_json(data))


def read_saved(targets: TargetSet) -> dict[str, Any] | None:
    """statistics.json; None where there is none, or it is damaged, or of other units than are there now."""
    try:
        data = storage.read_json(storage.join(targets.url, STATISTICS))
    except (FileNotFoundError, InputError):
        return None
    if not isinstance(data, dict) or data.get("statistics_xxh3") != own_digest(data):
        return None
    return data if data["format"] == FORMAT and data["units"] == units_digest(targets) else None


def units_digest(targets: TargetSet) -> str:
    """Of the units' names and frames."""
    lines = sorted(f"{unit} {done['xxh3']}" for unit, done in targets.done.items())
    return xxhash.xxh3_128_hexdigest("\n".join(lines).encode())


def own_digest(data: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(storage.to_json({k: v for k, v in data.items() if k != "statistics_xxh3"}))


def numbers(values_D: NDArray[np.float64]) -> list[float | None]:
    """For JSON, which has neither NaN nor infinity: None where a dimension has no values."""
    return [float(v) if np.isfinite(v) else None for v in values_D]
