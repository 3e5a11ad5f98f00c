"""What the tables of the report are made of: results by arm, draws of the bootstrap, cells, rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.scale_model.arms import ARMS, ASKED
from benchmarks.scale_model.results import Result

REGIMES = {"scratch": "From scratch", "tuned": "A student that was taught other questions first, frozen, with LoRA"}
RESAMPLES = 2000
NAMES = {
    "A": "A plain SFT",
    "B": "B block alone",
    "C": "C CoAT",
    "D": "D distilled at the audio",
    "E": "E distilled at both",
}
Hits = NDArray[np.float64]  # [seeds, clips], mean over questions


def hits(results: Sequence[Result], questions: Iterable[str]) -> Hits:
    """Of the test clips, a row a seed."""
    return np.array([[[int(c) for c in r["test"][q]] for q in questions] for r in results], float).mean(1)


def resampled(parts: Sequence[Hits]) -> list[NDArray[np.float64]]:
    """Means of `parts`, which have the same clips and seeds, in RESAMPLES draws of both."""
    rng, (seeds, clips) = np.random.default_rng(0), parts[0].shape
    draws: list[list[float]] = []
    for _ in range(RESAMPLES):
        s, c = rng.integers(seeds, size=seeds), rng.integers(clips, size=clips)
        draws.append([part[np.ix_(s, c)].mean() for part in parts])
    return list(np.array(draws).T)


def interval(values: NDArray[np.float64]) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{100 * low:.1f} to {100 * high:.1f}"


def percent(value: float | np.floating[Any]) -> str:
    return f"{100 * value:.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


class Found:
    """The results by regime, arm and what they are for."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results

    def of(self, regime: str, arm: str, what: str) -> list[Result]:
        found = [
            r for r in self.results if (r["run"]["regime"], r["run"]["arm"], r["run"]["what"]) == (regime, arm, what)
        ]
        return sorted(found, key=lambda r: (r["run"]["seed"], r["run"]["lr"]))

    def arms(self, regime: str, what: str, arms: Sequence[str] = ARMS) -> dict[str, list[Result]]:
        return {arm: self.of(regime, arm, what) for arm in arms if self.of(regime, arm, what)}


DIFFERENCE = ("difference", "points", "95 %")


def difference(name: str, one: Sequence[Result], other: Sequence[Result], regime: str) -> list[str]:
    a, b = resampled([hits(one, ASKED[regime]), hits(other, ASKED[regime])])
    return [name, percent(float((a - b).mean())), interval(a - b)]


def mean_of(parts: Sequence[Mapping[str, Any]], name: str, what: str) -> float | None:
    values = [value for part in parts for value in part[name].get(what, {}).values()]
    return float(np.mean(values)) if values else None
