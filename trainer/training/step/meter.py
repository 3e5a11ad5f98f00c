"""Means over the steps since the last report."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

RATES = ("steps_per_s", "samples_per_s", "tokens_per_s")  # tokens: positions without padding


class Meter:
    """Sums and counts by name; a mean is a sum over its count. Losses: sums over tokens or frames."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, total: float, count: float = 1) -> None:
        self.sums[name] += total
        self.counts[name] += count

    def add_losses(self, sums: Mapping[str, float], counts: Mapping[str, float], weights: Mapping[str, float]) -> None:
        """A step's sums of losses, what they are divided by, and their weights in `loss`."""
        for name, value in sums.items():
            self.add(name if name == "ce" else f"distill/{name}", value, counts[name])
        self.add("loss", sum(weights[n] * v / max(counts[n], 1.0) for n, v in sums.items()))

    def add_work(self, positions: float, padded_positions: float, samples: float) -> None:
        """A step's positions without padding and with it, and its samples."""
        self.add("padding", padded_positions - positions, padded_positions)
        for name, amount in zip(RATES, (1, samples, positions), strict=True):
            self.add(name, amount, 0)

    def add_time(self, seconds: float, waited: float) -> None:
        """A step's seconds, without those of reports, checkpoints and evaluation; `waited`: of these, for data."""
        self.add("wait_share", waited, seconds)
        for name in RATES:
            self.add(name, 0, seconds)

    def means(self) -> dict[str, float]:
        """Losses that had no token or frame since the last report are left out."""
        return {name: self.sums[name] / count for name, count in self.counts.items() if count}

    def clear(self) -> None:
        self.sums.clear()
        self.counts.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.clear()
        self.sums.update(state["sums"])
        self.counts.update(state["counts"])
