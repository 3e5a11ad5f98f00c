"""Ridge regression in closed form, against scikit-learn and against what the scale model's probes did."""

import numpy as np
import pytest

from coat.analysis.probing.ridge import PENALTIES, Matrix, Part, accuracy, fit_and_score, fit_ridge, r_squared


def data(classes: int = 0, seed: int = 0) -> list[Part]:
    """Three parts of states of unlike scales, and what lies in them beside noise."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(12, classes or 1))
    parts = []
    for n in (90, 40, 50):
        states = rng.normal(size=(n, 12)) * np.logspace(-2, 2, 12) + 5
        y = ((states - 5) / np.logspace(-2, 2, 12)) @ weights + rng.normal(size=(n, classes or 1))
        parts.append(Part(states, np.eye(classes)[y.argmax(1)] if classes else y))
    return parts


@pytest.mark.parametrize("penalty", [0.01, 1.0, 100.0])
def test_it_is_ridge_regression_of_standardised_states(penalty: float):
    linear_model = pytest.importorskip("sklearn.linear_model")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    train, _, test = data(classes=3)
    scaler = preprocessing.StandardScaler().fit(train.states_ND)
    theirs = linear_model.Ridge(alpha=penalty).fit(scaler.transform(train.states_ND), train.targets_NC)
    (ours,) = fit_ridge(train.states_ND, train.targets_NC, [penalty])
    assert np.allclose(ours.predict(test.states_ND), theirs.predict(scaler.transform(test.states_ND)), atol=1e-7)


@pytest.mark.parametrize("classes", [0, 4])
def test_fitting_and_scoring_gives_what_the_scale_models_probes_gave(classes: int):
    """As they were written first: the same numbers, bit by bit."""
    parts = data(classes, seed=classes)
    x, y = [p.states_ND for p in parts], [p.targets_NC for p in parts]
    mean, std = x[0].mean(0), x[0].std(0) + 1e-9
    train, validation, test = (np.hstack([(part - mean) / std, np.ones((len(part), 1))]) for part in x)

    def ridge(penalty: float) -> Matrix:
        penalties = np.full(train.shape[1], penalty)
        penalties[-1] = 0.0
        return np.linalg.solve(train.T @ train + np.diag(penalties), train.T @ y[0])

    def score(predicted: Matrix, y: Matrix) -> float:
        if y.shape[1] == 1:
            return float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())
        return float((predicted.argmax(1) == y.argmax(1)).mean())

    best = max((ridge(p) for p in PENALTIES), key=lambda w: score(validation @ w, y[1]))
    found = fit_and_score(*parts, score=accuracy if classes else r_squared)
    assert found == score(test @ best, y[2]) > 0.3


def test_the_penalty_is_the_best_one_on_validation():
    rng = np.random.default_rng(1)
    noise = [Part(rng.normal(size=(n, 40)), rng.normal(size=(n, 1))) for n in (50, 400, 400)]
    assert -0.1 < fit_and_score(*noise, score=r_squared) < 0.05  # a large penalty: near the mean
    assert r_squared(fit_ridge(*noise[0], [PENALTIES[0]])[0].predict(noise[2].states_ND), noise[2].targets_NC) < -1


def test_a_dimension_that_never_changes_is_left_out():
    train, validation, test = data()
    constant = [Part(np.hstack([p.states_ND, np.full((len(p.states_ND), 1), 7.0)]), p.targets_NC) for p in data()]
    assert fit_and_score(*constant, score=r_squared) == pytest.approx(
        fit_and_score(train, validation, test, score=r_squared), abs=1e-9
    )
