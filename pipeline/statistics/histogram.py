"""Counts of values per dimension in bins that need not be agreed on beforehand. N frames, D dim, B bins, Q quantiles.

A bin is 2**e wide and begins at a multiple of its width, and e is the least for which BINS bins span a dimension's
values. So bins of a coarser histogram are made of whole bins of a finer one, and the histogram of all values is the
same, count for count, in whatever blocks and order they came.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 1024  # a bin is 1/1024 to 1/512 of a dimension's range wide
FINEST = -64  # exponent of the width where all values are 0
DIGITS = 40  # bits from the largest value to a bin's width: numbers of bins stay exact, float32 has 24 bits


@dataclass(frozen=True)
class Histogram:
    """Bin b of dimension d holds the values from `(first + b) * 2**exponent` to the next bin."""

    exponent_D: NDArray[np.int64]
    first_D: NDArray[np.int64]
    counts_DB: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        values_ND: NDArray[np.float64],
        finite_ND: NDArray[np.bool_],
        low_D: NDArray[np.float64],
        high_D: NDArray[np.float64],
    ) -> "Histogram":
        """Of the finite values, which lie in `low_D .. high_D` (infinity the wrong way round where there are none)."""
        exponent_D, first_D = bin_grid(low_D, high_D)
        dims = values_ND.shape[1]
        floors_ND = values_ND * np.exp2(-exponent_D)
        numbers_ND = np.floor(floors_ND, out=floors_ND).astype(np.int64)
        numbers_ND += np.arange(dims) * BINS - first_D
        counts = np.bincount(numbers_ND.ravel() if finite_ND.all() else numbers_ND[finite_ND], minlength=dims * BINS)
        return cls(exponent_D, first_D, counts.reshape(dims, BINS).astype(np.int64, copy=False))

    def counts_on_grid(self, exponent_D: NDArray[np.int64], first_D: NDArray[np.int64]) -> NDArray[np.int64]:
        """The counts in the bins of a grid that spans at least these values, `[D, B]`."""
        if np.array_equal(exponent_D, self.exponent_D) and np.array_equal(first_D, self.first_D):
            return self.counts_DB
        dims = len(self.first_D)
        # A shift of more bits than a number of a bin has leaves its sign; C leaves shifts beyond 63 undefined.
        shift_D = np.minimum(exponent_D - self.exponent_D, 62)
        numbers_DB = (self.first_D[:, None] + np.arange(BINS)) >> shift_D[:, None]
        places_DB = np.clip(numbers_DB - first_D[:, None], 0, BINS - 1)  # what lies outside is empty
        places_DB += np.arange(dims)[:, None] * BINS
        counts = np.bincount(places_DB.ravel(), self.counts_DB.ravel(), dims * BINS)  # exact: float64 below 2**53
        return counts.astype(np.int64).reshape(dims, BINS)

    def merge(self, other: "Histogram", low_D: NDArray[np.float64], high_D: NDArray[np.float64]) -> "Histogram":
        """Of the values of both, which lie in `low_D .. high_D`."""
        bins = bin_grid(low_D, high_D)
        return Histogram(*bins, self.counts_on_grid(*bins) + other.counts_on_grid(*bins))

    @property
    def width_D(self) -> NDArray[np.float64]:
        return np.exp2(self.exponent_D)

    def bin_centres(self) -> NDArray[np.float64]:
        """Of the bins, `[D, B]`."""
        return (self.first_D[:, None] + np.arange(BINS) + 0.5) * self.width_D[:, None]

    def quantiles(self, wanted_Q: ArrayLike) -> NDArray[np.float64]:
        """As numpy's (linear) within a bin's width, `[Q, D]`; NaN where a dimension has no values."""
        count_D = self.counts_DB.sum(axis=1)
        cumulative_DB = np.cumsum(self.counts_DB, axis=1)
        quantiles = []
        for q in np.asarray(wanted_Q, np.float64):
            rank_D = q * np.maximum(count_D - 1, 0)
            below_D = np.floor(rank_D)
            low_D, high_D = (self.value_at_rank(r_D, cumulative_DB) for r_D in (below_D, np.ceil(rank_D)))
            quantiles.append(np.where(count_D > 0, low_D + (rank_D - below_D) * (high_D - low_D), np.nan))
        return np.stack(quantiles)

    def value_at_rank(self, rank_D: NDArray[np.float64], cumulative_DB: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values of a bin are taken to lie evenly in it."""
        bin_D = np.minimum((cumulative_DB <= rank_D[:, None]).sum(axis=1), BINS - 1)
        at = np.arange(len(bin_D)), bin_D
        bin_counts_D = np.maximum(self.counts_DB[at], 1)
        within_D = (rank_D - (cumulative_DB[at] - bin_counts_D) + 0.5) / bin_counts_D
        return (self.first_D + bin_D + within_D) * self.width_D


def bin_grid(low_D: NDArray[np.float64], high_D: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Exponents of the widths, and numbers of the first bins. A wider range never has a finer grid."""
    has_values_D = low_D <= high_D
    low_D, high_D = np.where(has_values_D, low_D, 0.0), np.where(has_values_D, high_D, 0.0)
    span_D = exponent_above(high_D - low_D) - (BINS.bit_length() - 1)
    size_D = exponent_above(np.maximum(np.abs(low_D), np.abs(high_D))) - DIGITS
    exponent_D = np.maximum(np.maximum(span_D, size_D), FINEST).astype(np.int64)
    width_D = np.exp2(exponent_D)
    exponent_D += np.floor(high_D / width_D) - np.floor(low_D / width_D) >= BINS  # edges lie so that one is wanting
    return exponent_D, np.floor(low_D / np.exp2(exponent_D)).astype(np.int64)


def exponent_above(sizes_D: NDArray[np.float64]) -> NDArray[np.int64]:
    """The least e with size < 2**e; of zero FINEST."""
    return np.where(sizes_D > 0, np.frexp(sizes_D)[1], FINEST).astype(np.int64)
