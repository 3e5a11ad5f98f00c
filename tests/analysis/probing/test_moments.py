"""Cross-validated ridge regression by sums, against scikit-learn on the whole matrix; and its memory."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from coat.analysis.probing.fitting import TargetGroup, probe_states, probe_with_fits, target_groups
from coat.analysis.probing.folds import fold_numbers, group_numbers, shuffled_rows
from coat.analysis.probing.moments import cross_validated
from coat.analysis.probing.ridge import PENALTIES, fit_ridge
from coat.analysis.probing.scores import draw, of_sums
from coat.analysis.probing.targets import Target
from tests.integration.helpers import PEAK

CPU = torch.device("cpu")
FOLDS = 4


def states_and_targets(rows: int = 160, dim: int = 12) -> tuple[np.ndarray, list[Target], np.ndarray]:
    """States far from zero, of unlike scales; a linear target of three columns, a noisy one, classes. Groups of two."""
    rng = np.random.default_rng(3)
    scale = np.logspace(-1, 2, dim)
    x = (rng.normal(size=(rows, dim)) * scale + 100 * scale).astype(np.float32)
    plain = (x - 100 * scale) / scale
    linear = plain @ rng.normal(size=(dim, 3))
    noisy = plain[:, :1] + 3 * rng.normal(size=(rows, 1))
    one_hot = np.eye(3)[(linear + rng.normal(size=linear.shape)).argmax(1)]
    targets = [
        Target("linear", linear.astype(np.float32)),
        Target("noisy", noisy.astype(np.float32)),
        Target("words", one_hot.astype(np.float32), ("a", "b", "c")),
    ]
    return x, targets, group_numbers([f"clip {n // 2}" for n in range(rows)])[0]


def blocks_of(x: np.ndarray, size: int = 23):
    return lambda: (x[n : n + size] for n in range(0, len(x), size))


def test_penalties_and_predictions_are_those_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, targets, group_N = states_and_targets()
    group = TargetGroup(targets, np.arange(len(x)), group_N, FOLDS)
    _, fits = probe_with_fits(blocks_of(x), group, int(group_N.max()) + 1, CPU, "ridge")
    fold_N, first_rows = fold_numbers(group_N, FOLDS), x[:23].astype(np.float64).mean(0)
    all_x = x.astype(np.float64)

    def theirs(train: np.ndarray, y: np.ndarray, penalty: float):
        mean, std = all_x[train].mean(0), all_x[train].std(0)
        ridge = linear_model.Ridge(alpha=penalty, solver="cholesky").fit((all_x[train] - mean) / std, y[train])
        return lambda rows: ridge.predict((all_x[rows] - mean) / std).reshape(rows.sum(), -1)

    for n, target in enumerate(targets):
        y = target.y_NC.astype(np.float64)
        for fold in range(FOLDS):
            errors = np.zeros(len(PENALTIES))
            for inner in set(range(FOLDS)) - {fold}:
                held, train = fold_N == inner, (fold_N != inner) & (fold_N != fold)
                errors += [((theirs(train, y, p)(held) - y[held]) ** 2).sum() for p in PENALTIES]
            best = PENALTIES[int(errors.argmin())]
            fitted, tested = fits[fold], fold_N == fold
            assert fitted.penalties[n] == best
            x_N = torch.from_numpy(all_x[tested] - first_rows)
            ours = fitted.predict(x_N)[:, group.columns[n]].numpy()
            assert np.allclose(ours, theirs(~tested, y, best)(tested), atol=1e-6 * np.abs(y).max())
    assert len({fit.penalties for fit in fits.values()} | {(1.0,)}) > 1


def test_scores_are_of_what_was_not_fitted_to():
    x, targets, group_N = states_and_targets()
    group = TargetGroup(targets, np.arange(len(x)), group_N, FOLDS)
    sums, fits = probe_with_fits(blocks_of(x), group, int(group_N.max()) + 1, CPU)
    (linear, control), (noisy, _), (words, chance) = (
        of_sums(t.metric, s.sum(0)[None]) for t, s in zip(targets, sums, strict=True)
    )
    assert linear[0] > 0.999999
    assert -0.4 < control[0] < 0.05
    assert -0.1 < noisy[0] < 0.3
    assert words[0] > 0.7
    assert 0.2 < chance[0] < 0.5
    # The score of one fold, computed of all its rows at once.
    fold, y = 1, targets[0].y_NC.astype(np.float64)
    tested = fold_numbers(group_N, FOLDS) == fold
    (fit,) = fit_ridge(x[~tested].astype(np.float64), y[~tested], [fits[fold].penalties[0]])
    rows = np.unique(group_N[tested])
    errors = ((fit.predict(x[tested].astype(np.float64)) - y[tested]) ** 2).sum()
    distances = ((y[tested] - y[~tested].mean(0)) ** 2).sum()
    assert sums[0][rows, 0].sum() == pytest.approx(errors, rel=1e-3)
    assert sums[0][rows, 1].sum() == pytest.approx(distances)


def test_noise_gives_chance_and_never_more():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 40)).astype(np.float32)
    words = np.eye(4, dtype=np.float32)[rng.integers(4, size=300)]
    targets = [Target("number", rng.normal(size=(300, 1)).astype(np.float32)), Target("word", words, tuple("abcd"))]
    sums = probe_states(blocks_of(x), TargetGroup(targets, np.arange(300), np.arange(300), 5), 300, CPU)
    number, word = draw(["r2", "accuracy"], sums, seed=1)
    score, control, selectivity = number.figures()
    assert score.value is not None
    assert -0.1 < score.value < 0.05
    assert selectivity.low is not None
    assert selectivity.high is not None
    assert selectivity.low < 0 < selectivity.high
    assert word.seen[0] == pytest.approx(0.25, abs=0.08)
    assert word.seen[1] == pytest.approx(0.25, abs=0.08)
    _, low, high = word.figures()[0].to_list()
    assert low is not None
    assert high is not None
    assert low < word.seen[0] < high
    assert control.value is not None
    assert control.value < 0.05


def test_blocks_make_no_difference_and_rows_without_a_target_none():
    x, targets, group_N = states_and_targets()
    missing = Target("linear", targets[0].y_NC.copy())
    missing.y_NC[::3] = np.nan
    used = np.arange(len(x)) != 7
    groups, problems = target_groups([missing, *targets[1:]], group_N, used, FOLDS)
    assert not problems
    assert [len(g.rows_N) for g in groups] == [105, 159]
    for group in groups:
        whole = probe_states(blocks_of(x, len(x)), group, 80, CPU)
        parts = probe_states(blocks_of(x, 5), group, 80, CPU)
        assert np.allclose(np.stack(whole), np.stack(parts), rtol=1e-6, atol=1e-9)
    kept = groups[0].rows_N
    alone = TargetGroup([Target("linear", targets[0].y_NC[kept])], np.arange(len(kept)), group_N[kept], FOLDS)
    assert np.allclose(
        probe_states(blocks_of(x[kept]), alone, 80, CPU)[0],
        probe_states(blocks_of(x), groups[0], 80, CPU)[0],
        atol=1e-6,
    )


def test_what_cannot_be_probed_says_why():
    constant = Target("constant", np.ones((40, 1), np.float32))
    rare = Target("rare", np.where(np.arange(40) < 9, np.arange(40), np.nan).astype(np.float32)[:, None])
    groups, problems = target_groups([constant, rare], np.arange(40), np.ones(40, bool), 5)
    assert groups == []
    assert problems == {"constant": "is the same in all clips", "rare": "has 9 rows; 10 are needed"}
    with pytest.raises(ValueError, match="2 folds; a penalty is chosen inside, which takes 3"):
        cross_validated([None, None], [])  # type: ignore[list-item]


def test_a_fold_shares_no_group_and_does_not_depend_on_the_order():
    names = [f"sound {n % 17}" for n in range(60)]
    group_N, count = group_numbers(names)
    assert count == 17
    fold_N = fold_numbers(group_N, 5)
    by_name = dict(zip(names, fold_N, strict=True))
    assert [by_name[name] for name in names] == fold_N.tolist()
    assert sorted(np.bincount(list(by_name.values()))) == [3, 3, 3, 4, 4]
    turned, _ = group_numbers(names[::-1])
    assert turned[::-1].tolist() == group_N.tolist()


def test_shuffled_targets_keep_what_a_group_has_in_common():
    group_N = np.array([0, 1, 1, 2, 0, 2, 3, 3, 4, 4])
    found = shuffled_rows(group_N)
    assert found.tolist() == shuffled_rows(group_N).tolist() != list(range(10))
    for group in range(5):
        assert len(set(group_N[found[group_N == group]])) == 1  # all rows of one other group
    assert sorted(group_N[found]) == sorted(group_N)


MEASURED = f"""
import numpy as np, torch
from coat.analysis.probing.fitting import TargetGroup, probe_states
from coat.analysis.probing.targets import Target
{PEAK}
def measured(rows, dim=256):
    def blocks():
        for n in range(0, rows, 1000):
            yield np.random.default_rng(n).normal(size=(1000, dim)).astype(np.float32)
    y = Target("y", np.random.default_rng(9).normal(size=(rows, 1)).astype(np.float32))
    probe_states(blocks, TargetGroup([y], np.arange(rows), np.arange(rows) % 50, 5), 50, torch.device("cpu"))
    return peak() // 2**20
print(measured(2000), measured(60000))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_states():
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, check=True, text=True)
    few, many = map(int, done.stdout.split())
    assert many - few < 30, (few, many)  # MB; 60,000 states are 61 MB, and 123 in float64
