"""What is known of a target set: per dimension, and over all of them. N frames, D dim, C components, Q quantiles."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.statistics.pca import PCA
from coat.pipeline.statistics.sampling import FrameSample
from coat.pipeline.statistics.sums import VOICING_CHANNEL, Sums

FORMAT = "coat-statistics/1"
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
ROUNDING = 2.0**-11  # of float16, relative: a dimension that moves no more than that says nothing


@dataclass(frozen=True)
class Statistics:
    """Of all frames of a target set, or of a sample of them."""

    spec: TargetSpec
    units: int
    seconds: float  # of audio
    sums: Sums
    quantiles_QD: NDArray[np.float64]
    exact: bool  # the quantiles; else they are right to a bin of the histogram
    units_read: tuple[str, ...] = ()  # units whose frames were read now, the others' sums being saved
    dropped_files: tuple[str, ...] = ()  # saved sums that were stale or damaged
    sample: FrameSample | None = None  # what they are of; None: of all frames

    @property
    def dead_D(self) -> NDArray[np.bool_]:
        """Dimensions that never move, or no more than float16 rounds their mean."""
        return self.sums.std_D <= ROUNDING * np.abs(self.sums.mean_D)

    @property
    def event_share_D(self) -> NDArray[np.float64] | None:
        """Share of frames in which an event is there or a class the likeliest; None for kinds without events."""
        has = self.spec.kind in ("probabilities", "distribution")
        return self.sums.hits_D / max(self.sums.frames, 1) if has else None

    @property
    def voiced_share(self) -> float | None:
        """Share of frames; None but for pitch."""
        if self.spec.kind != "pitch":
            return None
        return float(self.sums.hits_D[VOICING_CHANNEL]) / max(self.sums.frames, 1)

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
            "mean": json_numbers(s.mean_D),
            "std": json_numbers(s.std_D),
            "min": json_numbers(s.low_D),
            "max": json_numbers(s.high_D),
            "nan": s.nan_D.tolist(),
            "inf": s.inf_D.tolist(),
            "dead": np.flatnonzero(self.dead_D).tolist() if s.frames else [],
            "quantiles": {f"{q:g}": json_numbers(row_D) for q, row_D in zip(QUANTILES, self.quantiles_QD, strict=True)},
            "quantile_error": [0.0] * self.spec.dim if self.exact else s.histogram.width_D.tolist(),
        }
        if self.sample is not None:
            data["sampled"] = self.sample.to_dict()
        if self.spec.channels:
            data["channels"] = list(self.spec.channels)
        if self.voiced_share is not None:
            data["voiced_share"] = self.voiced_share
        if self.event_share_D is not None:
            data["event_share"] = self.event_share_D.tolist()
        if self.pca is not None:
            data["variance"] = self.pca.variance_C.tolist()
            data["covariance_frames"] = s.whole
        return data


def json_numbers(values_D: NDArray[np.float64]) -> list[float | None]:
    """For JSON, which has neither NaN nor infinity: None where a dimension has no values."""
    return [float(v) if np.isfinite(v) else None for v in values_D]
