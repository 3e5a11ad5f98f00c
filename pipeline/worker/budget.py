"""How much audio a forward pass may hold where memory has run out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

GOOD_PASSES = 8  # near the limit that fitted, before a larger one is tried
CLOSE = 1.1  # what failed is not tried again where it is no more than this times what fits
FORGET_PASSES = 500  # after which what failed is tried again: another process may have had the memory


@dataclass
class BatchBudget:
    """Padded seconds of audio that a pass may hold: unlimited until memory runs out, then half of what did not fit.

    From there it grows again by halving the gap to the smallest pass that failed, so that it comes to rest just below
    it. It never exceeds the batch that was planned, which is cut by it.
    """

    limit: float = math.inf  # seconds
    failed: float = math.inf  # the smallest pass that did not fit
    fits: float = 0.0  # the largest pass that did fit since memory ran out
    good: int = 0  # passes near the limit since it changed
    halvings: int = 0

    def ran_out(self, seconds: float) -> None:
        """A pass of so many padded seconds did not fit."""
        self.failed = min(self.failed, seconds)
        self.fits = self.fits if self.fits < seconds else 0.0
        self.limit, self.good = min(self.limit, max(self.fits, seconds / 2)), 0
        self.halvings += 1

    def fitted(self, seconds: float) -> None:
        """A pass did fit. Those that are much smaller than the limit say nothing of it."""
        if self.limit == math.inf or seconds <= self.limit / 2:
            return
        self.good += 1
        self.fits = max(self.fits, seconds)
        if self.good >= FORGET_PASSES:
            self.limit, self.failed, self.good = self.failed, math.inf, 0
        elif self.good >= GOOD_PASSES and self.limit * CLOSE < self.failed:
            self.limit, self.good = min(2 * self.limit, (self.limit + self.failed) / 2), 0

    def cut(self, padded: Sequence[float], pads: bool) -> list[slice]:
        """Parts of a batch, whose clips cost so many padded seconds each; one clip at least is in each."""
        parts: list[slice] = []
        start = 0
        for i in range(1, len(padded) + 1):
            if i == len(padded) or pass_seconds(padded[start : i + 1], pads) > self.limit:
                parts.append(slice(start, i))
                start = i
        return parts


def pass_seconds(padded: Sequence[float], pads: bool) -> float:
    """What clips cost together; `pads`: each is padded to the longest."""
    return max(padded) * len(padded) if pads else sum(padded)
