"""95 % intervals by bootstrap: rows are drawn again, with replacement, and scored.

Rows that share an audio are drawn together, as a cluster: ten questions about one clip are no ten independent draws.
Each metric is made of sums over rows (`from_totals`), so a draw is a matrix product: weights of clusters `[R, C]` times
sums of clusters `[C, S]`. R draws, C clusters, S sums.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000  # of which 50 lie beyond either end of an interval
SEED = 20260
AT_ONCE = 1 << 22  # weights in memory
LOW, HIGH = 0.025, 0.975
Z = 1.959964  # of the normal distribution at HIGH

Totals = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]  # by sum: over and under, each [R]
FromTotals = Callable[[Totals], Mapping[str, NDArray[np.float64]]]  # by metric, [R]


@dataclass(frozen=True)
class Clusters:
    """Which cluster each row is of. Draws depend on the number of clusters alone, so two models are drawn alike."""

    of_row: NDArray[np.int64]  # [rows]
    count: int

    @classmethod
    def of(cls, audio: Sequence[str]) -> "Clusters":
        """By what was heard; rows without audio ("") are a cluster each."""
        number: dict[str, int] = {}
        of_row = [number.setdefault(a or f"\0{i}", len(number)) for i, a in enumerate(audio)]
        return cls(np.array(of_row, np.int64), len(number))

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of rows `[rows, S]` by cluster, `[C, S]`."""
        found = np.zeros((self.count, values.shape[1]))
        np.add.at(found, self.of_row, values)
        return found

    def draw(self, sums: NDArray[np.float64], draws: int = DRAWS, seed: int = SEED) -> NDArray[np.float64]:
        """Totals of each draw, `[R, S]`, from sums by cluster `[C, S]`."""
        return np.concatenate([weights @ sums for weights in self.weights(draws, seed)])

    def weights(self, draws: int = DRAWS, seed: int = SEED) -> Iterator[NDArray[np.int64]]:
        """How often each draw has each cluster, `[r, C]`: some draws at a time, R in all."""
        rng = np.random.default_rng(seed)
        at_once = max(1, AT_ONCE // max(self.count, 1))
        for start in range(0, draws, at_once):
            r = min(at_once, draws - start)
            drawn = rng.integers(self.count, size=(r, self.count), dtype=np.int32)
            drawn += (self.count * np.arange(r, dtype=np.int32))[:, None]  # below AT_ONCE, or one row
            yield np.bincount(drawn.ravel(), minlength=r * self.count).reshape(r, self.count)


def spread(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95 % of draws in the middle. None where no draw has a value (a group that no draw has rows of)."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, (LOW, HIGH))
    return float(low), float(high)


def wilson(share: float, draws: int) -> tuple[float, float]:
    """Wilson's interval of a share. Where all rows agree, every draw is the same, and the bootstrap would say that
    3 of 3 are surely 100 %."""
    if not draws:
        return 0.0, 1.0
    middle = (share + Z**2 / (2 * draws)) / (1 + Z**2 / draws)
    half = Z / (1 + Z**2 / draws) * math.sqrt(share * (1 - share) / draws + Z**2 / (4 * draws**2))
    return max(0.0, middle - half), min(1.0, middle + half)
