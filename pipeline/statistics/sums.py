"""What statistics are made of: sums over some frames that add up to the sums over all. N frames, D dim.

Everything is float64 whatever is stored, and kept as a mean and deviations from it: sums of float16 overflow after
some hundred frames, and sums of squares lose a small deviation beside a large mean.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.targets.spec import Kind
from coat.pipeline.statistics.histogram import Histogram

FORMAT = "coat-sums/1"
PRESENT_FROM = 0.5  # an event is there, or a frame voiced, from this on
VOICING_CHANNEL = 1  # the channel of kind pitch

Values = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Of some frames. NaN and infinities are counted, and left out of all else."""

    frames: int
    nan_D: Counts
    inf_D: Counts
    hits_D: Counts  # frames in which the dimension's event is there, or its class the likeliest, or that are voiced
    count_D: Counts  # of finite values
    mean_D: Values  # 0 where there are none
    squares_D: Values  # of the deviations from the mean
    low_D: Values  # infinity where there are none
    high_D: Values
    histogram: Histogram
    whole: int  # frames without a NaN or infinity, which alone count for the covariance
    centre_D: Values  # their mean
    scatter_DD: Values | None  # sum of products of deviations from it; None where it was not asked for

    @classmethod
    def of(cls, frames_ND: NDArray[Any], kind: Kind, covariance: bool) -> "Sums":
        values_ND = frames_ND.astype(np.float64)
        finite_ND = np.isfinite(values_ND)
        nan_D, count_D = np.isnan(values_ND).sum(axis=0), finite_ND.sum(axis=0)
        whole_N = np.logical_and.reduce(finite_ND, axis=1)
        values_ND[~whole_N] = np.where(finite_ND[~whole_N], values_ND[~whole_N], 0.0)
        mean_D = values_ND.sum(axis=0) / np.maximum(count_D, 1)
        low_D = values_ND.min(axis=0, where=finite_ND, initial=np.inf)
        high_D = values_ND.max(axis=0, where=finite_ND, initial=-np.inf)
        histogram = Histogram.of(values_ND, finite_ND, low_D, high_D)
        hits_D = count_hits(values_ND, whole_N, kind)
        deviations_ND = values_ND
        deviations_ND -= mean_D
        whole_ND = deviations_ND if whole_N.all() else deviations_ND[whole_N]
        shift_D = whole_ND.sum(axis=0) / max(len(whole_ND), 1)  # 0 but for rounding where all frames are whole
        deviations_ND[~finite_ND] = 0.0
        squares_D = np.einsum("nd,nd->d", deviations_ND, deviations_ND)
        scatter_DD = None
        if covariance:
            whole_ND -= shift_D
            scatter_DD = whole_ND.T @ whole_ND
        return cls(
            frames=len(frames_ND),
            nan_D=nan_D,
            inf_D=len(frames_ND) - count_D - nan_D,
            hits_D=hits_D,
            count_D=count_D,
            mean_D=mean_D,
            squares_D=squares_D,
            low_D=low_D,
            high_D=high_D,
            histogram=histogram,
            whole=len(whole_ND),
            centre_D=mean_D + shift_D,
            scatter_DD=scatter_DD,
        )

    @classmethod
    def zero(cls, dim: int, kind: Kind, covariance: bool) -> "Sums":
        return cls.of(np.zeros((0, dim)), kind, covariance)

    def __add__(self, other: "Sums") -> "Sums":
        """Of the frames of both (Chan, Golub and LeVeque 1979)."""
        count_D = self.count_D + other.count_D
        step_D = other.mean_D - self.mean_D
        share_D = other.count_D / np.maximum(count_D, 1)
        whole = self.whole + other.whole
        move_D = other.centre_D - self.centre_D
        share = other.whole / max(whole, 1)
        scatter_DD = None
        if self.scatter_DD is not None and other.scatter_DD is not None:
            scatter_DD = self.scatter_DD + other.scatter_DD
            scatter_DD += np.outer(move_D, move_D * (share * self.whole))
        low_D, high_D = np.minimum(self.low_D, other.low_D), np.maximum(self.high_D, other.high_D)
        return Sums(
            frames=self.frames + other.frames,
            nan_D=self.nan_D + other.nan_D,
            inf_D=self.inf_D + other.inf_D,
            hits_D=self.hits_D + other.hits_D,
            count_D=count_D,
            mean_D=self.mean_D + step_D * share_D,
            squares_D=self.squares_D + other.squares_D + step_D**2 * share_D * self.count_D,
            low_D=low_D,
            high_D=high_D,
            histogram=self.histogram.merge(other.histogram, low_D, high_D),
            whole=whole,
            centre_D=self.centre_D + move_D * share,
            scatter_DD=scatter_DD,
        )

    @property
    def std_D(self) -> Values:
        """Of the population, as numpy's."""
        return np.sqrt(self.squares_D / np.maximum(self.count_D, 1))

    @property
    def covariance_DD(self) -> Values:
        """Of the population; call only where it was asked for."""
        assert self.scatter_DD is not None
        return self.scatter_DD / max(self.whole, 1)

    def to_bytes(self, units: Mapping[str, str]) -> bytes:
        """An .npz that says of which units (unit: digest of its frames) these are the sums."""
        head = {"format": FORMAT, "units": dict(units), "frames": self.frames, "whole": self.whole}
        arrays = {name: getattr(self, name) for name in ARRAY_FIELDS}
        arrays |= {name: getattr(self.histogram, name) for name in HISTOGRAM_FIELDS}
        if self.scatter_DD is not None:
            arrays["scatter"] = self.scatter_DD[np.triu_indices(len(self.scatter_DD))]  # it is symmetric
        sink = io.BytesIO()
        np.savez_compressed(sink, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple["Sums", dict[str, str]]:
        """And the units. ValueError where they are of another version of coat."""
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            head = json.loads(held["head"].tobytes())
            if head["format"] != FORMAT:
                raise ValueError(f"format {head['format']}, not {FORMAT}")
            arrays = {name: held[name] for name in ARRAY_FIELDS}
            histogram = Histogram(**{name: held[name] for name in HISTOGRAM_FIELDS})
            scatter_DD = None
            if "scatter" in held:
                dim = len(arrays["mean_D"])
                scatter_DD = np.zeros((dim, dim))
                scatter_DD[np.triu_indices(dim)] = held["scatter"]
                scatter_DD += np.triu(scatter_DD, 1).T
        sums = cls(frames=head["frames"], whole=head["whole"], histogram=histogram, scatter_DD=scatter_DD, **arrays)
        return sums, head["units"]


ARRAY_FIELDS = ("nan_D", "inf_D", "hits_D", "count_D", "mean_D", "squares_D", "low_D", "high_D", "centre_D")
HISTOGRAM_FIELDS = ("exponent_D", "first_D", "counts_DB")


def count_hits(values_ND: Values, whole_N: NDArray[np.bool_], kind: Kind) -> Counts:
    dim = values_ND.shape[1]
    if kind == "probabilities":
        return (values_ND >= PRESENT_FROM).sum(axis=0)
    if kind == "distribution":
        return np.bincount(values_ND[whole_N].argmax(axis=1), minlength=dim)
    if kind == "pitch":
        return (values_ND >= PRESENT_FROM).sum(axis=0) * (np.arange(dim) == VOICING_CHANNEL)
    return np.zeros(dim, np.int64)
