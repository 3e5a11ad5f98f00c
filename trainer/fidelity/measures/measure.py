"""What the measures of all kinds have in common.

A clip is a record of numbers that add up over clips. Figures are made of totals, in which each clip has a weight: 1,
or how often a bootstrap draw has it. So intervals need no second look at frames.

N frames of a clip, O outputs of a head, D dims of the target, C clips, R draws (rows of weights), S numbers of a
record.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.trainer.evaluation.statistics.bootstrap import DRAWS
from coat.trainer.model.loss_scales import outputs_of_mean

Record = NDArray[Any]  # of one clip
Weights = NDArray[np.floating[Any] | np.integer[Any]]  # [R, C]
Figures = dict[str, NDArray[np.float64]]  # by name, [R]; NaN where there is nothing to divide by
LOWER_IS_BETTER = ("voicing_false_alarm",)


@dataclass(frozen=True)
class Part:
    """A class or channel by itself. `problem` says why it has no figures, and is in no mean."""

    name: str
    frames: float  # in which the class is present; of a channel, all
    figures: Mapping[str, float]
    problem: str = ""
    clips: int = 0  # that have the class; 0 of channels, which all have


class Measure(ABC):
    """Of one expert. `names`: its figures, the first one for where there is room for one."""

    names: tuple[str, ...]
    draws = DRAWS  # of the bootstrap: fewer where a draw costs much

    def __init__(self, expert: ExpertInfo) -> None:
        self.expert, self.spec = expert, expert.spec

    @abstractmethod
    def record(self, outputs_NO: Tensor, target_ND: Tensor) -> Record:
        """Of one clip: a head's outputs (float32) and the target, as it is stored. At least one frame."""

    @abstractmethod
    def figures(self, records: Any, weights_RC: Weights) -> Figures:
        """Of what `stack` gave."""

    def parts(self, records: Any) -> list[Part]:
        """Classes or channels one by one, all clips with weight 1. None where the measure has no parts."""
        return []

    def stack(self, records: Sequence[Record]) -> Any:
        """Records of C clips as one thing that can be indexed by clips: `[C, S]`."""
        return np.stack(records)

    def constant_outputs(self) -> Tensor:
        """What a head would give that says the training mean of every frame, `[O]`: the best constant."""
        return outputs_of_mean(self.expert)

    def names_of_dims(self) -> list[str]:
        return list(self.spec.channels) or [str(d) for d in range(self.spec.dim)]


def ratio(over: NDArray[Any], under: NDArray[Any]) -> NDArray[np.float64]:
    """NaN where there is nothing below the line."""
    return np.divide(over, under, out=np.full(np.broadcast(over, under).shape, np.nan), where=under > 0)


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis; NaN where none is known."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1))
