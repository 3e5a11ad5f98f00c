"""Ridge regression: a linear map from hidden states to targets, in closed form.

n clips, D dim of the states, C columns of the targets. States are standardised by the clips that are fitted to; the
constant is not penalised. In memory (`fit_ridge`, `fit_and_score`) and by sums over clips (`solve`, which `moments.py`
feeds), so that no state need be kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PENALTIES = tuple(10.0**p for p in range(-2, 5))  # of the sum of squares of standardised weights
TINY = 1e-9  # beside a standard deviation: a dimension that never changes tells nothing, and divides by nothing
Matrix = NDArray[np.floating[Any]]
Score = Callable[[Matrix, Matrix], float]  # of predictions and targets, `[n, C]` each; larger is better


class Part(NamedTuple):
    """Clips: their states and what is to be read off them."""

    states_ND: Matrix
    targets_NC: Matrix  # one-hot, of classes


@dataclass(frozen=True)
class Ridge:
    """A fitted map; `predict` gives `[n, C]`."""

    mean_D: Matrix
    std_D: Matrix
    weights_EC: Matrix  # E: D and the constant, of standardised states

    def predict(self, states_ND: Matrix) -> Matrix:
        return standardised(states_ND, self.mean_D, self.std_D) @ self.weights_EC


def fit_ridge(states_ND: Matrix, targets_NC: Matrix, penalties: Sequence[float] = PENALTIES) -> list[Ridge]:
    """One map a penalty."""
    mean_D, std_D = states_ND.mean(0), states_ND.std(0) + TINY
    x_NE = standardised(states_ND, mean_D, std_D)
    gram_EE, cross_EC = x_NE.T @ x_NE, x_NE.T @ targets_NC
    return [Ridge(mean_D, std_D, solve(gram_EE, cross_EC, penalty)) for penalty in penalties]


def fit_and_score(train: Part, validation: Part, test: Part, score: Score) -> float:
    """The score on `test` of the map that was fitted to `train`, its penalty the best one on `validation`."""
    fitted = fit_ridge(train.states_ND, train.targets_NC)
    best = max(fitted, key=lambda ridge: score(ridge.predict(validation.states_ND), validation.targets_NC))
    return score(best.predict(test.states_ND), test.targets_NC)


def solve(gram_EE: Matrix, cross_EC: Matrix, penalty: float) -> Matrix:
    """`[E, C]`: the weights; `x.T @ x` and `x.T @ y` are of standardised states with a last column of ones."""
    penalties_E = np.full(len(gram_EE), penalty)
    penalties_E[-1] = 0.0
    return np.linalg.solve(gram_EE + np.diag(penalties_E), cross_EC)


def standardised(states_ND: Matrix, mean_D: Matrix, std_D: Matrix) -> Matrix:
    """`[n, D + 1]`, the last column ones."""
    return np.hstack([(states_ND - mean_D) / std_D, np.ones((len(states_ND), 1))])


def r_squared(predicted_NC: Matrix, targets_NC: Matrix) -> float:
    """1 - squared errors / squared distances from the mean, summed over columns. Of constant targets: minus infinity,
    or not a number.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = ((targets_NC - predicted_NC) ** 2).sum()
        return float(1 - errors / ((targets_NC - targets_NC.mean(0)) ** 2).sum())


def accuracy(predicted_NC: Matrix, targets_NC: Matrix) -> float:
    """The share of clips whose largest column is the right one."""
    return float((predicted_NC.argmax(1) == targets_NC.argmax(1)).mean())
