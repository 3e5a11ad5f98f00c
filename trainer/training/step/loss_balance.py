"""Weights of experts that follow the training (`losses.balance`), beside those that the config fixes.

All of it is computed from numbers that are the same on all ranks, of steps that are done: a step's factors are known
before it begins, and a checkpoint holds what they come from.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from coat.trainer.config.sections import LossConfig

SMOOTHING = 0.98  # of logarithms of gradient norms: a mean of the last fifty steps or so
RATE = 0.02  # of log variances, a step
LARGEST_STEP = 0.1  # of a log variance: a spike of one step is none of the balance
LARGEST = math.log(1000.0)  # a factor is within a thousandth and a thousand


class LossBalance:
    """A factor for each expert's weight.

    fixed: 1. grad_norm: such that all pull at the states with the norm that their weights say (after GradNorm, Chen
    et al., arXiv 1711.02257, without its term of training rates); the factors' geometric mean is 1. uncertainty:
    1 / variance, where log variances s are learnt by gradient steps on exp(-s) L + s (Kendall et al., arXiv
    1705.07115).
    """

    def __init__(self, config: LossConfig, names: Sequence[str]) -> None:
        self.kind = config.balance
        # By expert: smoothed log of the norm of its gradient at weight 1, or the log variance.
        self.values: dict[str, float] = dict.fromkeys(names, 0.0) if self.kind == "uncertainty" else {}

    def factors(self) -> dict[str, float]:
        """Of experts for which there is one yet."""
        # fsum: the same in whatever order they come, and a checkpoint has its own.
        middle = math.fsum(self.values.values()) / max(1, len(self.values)) if self.kind == "grad_norm" else 0.0
        return {name: math.exp(clamp(middle - value, LARGEST)) for name, value in self.values.items()}

    def applied(self, weights: Mapping[str, float]) -> dict[str, float]:
        """The weights of a step, with their factors."""
        factors = self.factors()
        return {name: weight * factors.get(name, 1.0) for name, weight in weights.items()}

    def update(self, means: Mapping[str, float], pulls: Mapping[str, float]) -> None:
        """Learn from a step, of the experts that it had frames of.

        `means`: the loss a frame, by its scale. `pulls`: the norm of that mean's gradient at the states, at weight 1.
        """
        if self.kind == "grad_norm":
            for name, pull in pulls.items():
                if pull > 0:
                    seen = math.log(pull)
                    self.values[name] = SMOOTHING * self.values.get(name, seen) + (1 - SMOOTHING) * seen
        elif self.kind == "uncertainty":
            for name, mean in means.items():
                step = RATE * (math.exp(-self.values[name]) * mean - 1)
                self.values[name] = clamp(self.values[name] + clamp(step, LARGEST_STEP), LARGEST)

    def state_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "values": dict(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """A run that was balanced otherwise before (`--change`, or begun without) begins anew with it."""
        if state.get("kind") == self.kind:
            self.values = {**self.values, **state["values"]}


def clamp(value: float, largest: float) -> float:
    return min(max(value, -largest), largest)
