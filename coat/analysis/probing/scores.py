"""Scores of probes with their control and their intervals, from sums by group. G groups, R draws of the bootstrap."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coat.trainer.evaluation.statistics.bootstrap import Clusters, spread, wilson

Draws = NDArray[np.float64]
SUMS = 4  # numerator and denominator, of the probe and of its control


@dataclass(frozen=True)
class Figure:
    """A value and the 95 % of bootstrap draws around it; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None

    def to_list(self) -> list[float | None]:
        return [None if v is None else round(v, 6) for v in (self.value, self.low, self.high)]


@dataclass(frozen=True)
class Score:
    """Of one target, at one place and layer, of one subject. `control`: of shuffled targets."""

    subject: int
    target: str
    place: str
    layer: int
    score: Figure
    control: Figure
    selectivity: Figure  # score - control, of the same draws
    penalties: tuple[float, ...]  # of each fold
    difference: Figure | None = None  # score less that of the first subject, of the same draws


def of_sums(metric: str, sums_R4: NDArray[np.float64]) -> tuple[Draws, Draws]:
    """Score and control, `[R]`. `r2`: 1 - squared errors / squared distances from the mean of what was fitted to."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = sums_R4[:, 0] / sums_R4[:, 1], sums_R4[:, 2] / sums_R4[:, 3]
    return (1 - shares[0], 1 - shares[1]) if metric == "r2" else shares


def figure(seen: float, drawn_R: Draws, share_of: int | None = None) -> Figure:
    """`share_of`: of an accuracy, the groups that it is of; where all agree the bootstrap knows no doubt."""
    if not np.isfinite(seen):
        return Figure(None, None, None)
    if share_of is not None and seen in (0.0, 1.0):
        return Figure(seen, *wilson(seen, share_of))
    return Figure(seen, *(spread(drawn_R) or (None, None)))


@dataclass(frozen=True)
class Drawn:
    """One score, seen and drawn."""

    seen: tuple[float, float]  # score, control
    draws: tuple[Draws, Draws]
    groups: int  # that have the target
    metric: str

    def figures(self) -> tuple[Figure, Figure, Figure]:
        """Score, control, selectivity."""
        share_of = self.groups if self.metric == "accuracy" else None
        score, control = (figure(s, d, share_of) for s, d in zip(self.seen, self.draws, strict=True))
        return score, control, figure(self.seen[0] - self.seen[1], self.draws[0] - self.draws[1])

    def less(self, other: "Drawn") -> Figure:
        return figure(self.seen[0] - other.seen[0], self.draws[0] - other.draws[0])


def draw(metrics: list[str], sums_G4: list[NDArray[np.float64]], seed: int) -> list[Drawn]:
    """Of scores over the same groups: groups are drawn again with replacement, the same ones for all scores. What was
    fitted is not fitted again.
    """
    groups = len(sums_G4[0])
    drawn_RS = Clusters(np.arange(groups), groups).draw(np.concatenate(sums_G4, 1), seed=seed)
    found = []
    for n, (metric, sums) in enumerate(zip(metrics, sums_G4, strict=True)):
        seen = of_sums(metric, sums.sum(0)[None])
        draws = of_sums(metric, drawn_RS[:, n * SUMS : (n + 1) * SUMS])
        found.append(Drawn((float(seen[0][0]), float(seen[1][0])), draws, int((sums[:, 1] > 0).sum()), metric))
    return found
