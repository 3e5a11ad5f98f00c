"""Logistic regression out of core, against scikit-learn on the whole standardised matrix."""

from functools import partial

import numpy as np
import pytest
import torch

from coat.analysis.probing import logistic
from coat.analysis.probing.fitting import TargetGroup, fold_moments, probe_with_fits
from coat.analysis.probing.folds import fold_numbers, shuffled_rows
from coat.analysis.probing.logistic import WordFit, Words, fit_words
from coat.analysis.probing.moments import FoldFit
from coat.analysis.probing.ridge import PENALTIES
from coat.analysis.probing.scores import of_sums
from coat.analysis.probing.targets import Target
from tests.analysis.probing.test_moments import blocks_of

CPU = torch.device("cpu")
FOLDS, DIM = 4, 10
SOME = (0.3, 30.0)


def states_and_words(classes: int, rows: int = 240, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """States far from zero, of unlike scales; the number of the class."""
    rng = np.random.default_rng(classes)
    scale = np.logspace(-1, 2, DIM)
    plain = rng.normal(size=(rows, DIM)) @ (np.eye(DIM) + 0.5 * rng.normal(size=(DIM, DIM)))
    y = (plain @ rng.normal(size=(DIM, classes)) + noise * rng.gumbel(size=(rows, classes))).argmax(1)
    return ((plain + 100) * scale).astype(np.float32), y


def group_of(y: np.ndarray, classes: int, folds: int = FOLDS) -> TargetGroup:
    words = Target("word", np.eye(classes, dtype=np.float32)[y], tuple("abcdefgh"[:classes]))
    return TargetGroup([words], np.arange(len(y)), np.arange(len(y)), folds)


class Theirs:
    """scikit-learn's, of standardised states. Of two classes they have one weight where softmax has two, each half."""

    def __init__(self, x: np.ndarray, y: np.ndarray, penalty: float) -> None:
        linear_model = pytest.importorskip("sklearn.linear_model")
        self.mean, self.std = x.mean(0), x.std(0)
        strength = (2 if len(set(y)) == 2 else 1) / penalty
        self.model = linear_model.LogisticRegression(C=strength, tol=1e-10, solver="newton-cholesky", max_iter=1000)
        self.model.fit((x - self.mean) / self.std, y)

    def deviance(self, x: np.ndarray, y: np.ndarray) -> float:
        logits = self.model.decision_function((x - self.mean) / self.std)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], 1)
        return (np.logaddexp.reduce(logits, 1) - logits[np.arange(len(y)), y]).sum()

    def hits(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.model.predict((x - self.mean) / self.std) == y


def exact(x: np.ndarray, group: TargetGroup, size: int) -> tuple[list[WordFit], np.ndarray]:
    """`fit_words` to the last digits; and what was taken off the states."""
    moments, shift_D = fold_moments(blocks_of(x, size), group, CPU)
    class_SN = torch.from_numpy(np.stack([group.y_NC[:, columns].argmax(1) for columns in group.columns]))
    own, control = group.columns
    states = torch.from_numpy(x.astype(np.float64)) - shift_D

    def rows():
        return ((states[n : n + size], torch.arange(n, min(n + size, len(x)))) for n in range(0, len(x), size))

    words, fold_N = [Words(class_SN, (own, control))], torch.from_numpy(group.fold_N)
    (found,) = fit_words(rows, words, list(moments.values()), fold_N, tolerance=1e-9, most_passes=600)
    assert all(fit.reached for fit in found)
    return found, shift_D.numpy()


@pytest.mark.parametrize("penalty", SOME)
@pytest.mark.parametrize("classes", [2, 4])
def test_coefficients_and_probabilities_are_those_of_scikit_learn(
    classes: int, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "PENALTIES", (penalty,))
    x, y = states_and_words(classes)
    group, all_x = group_of(y, classes), x.astype(np.float64)
    answers = np.stack([group.y_NC[:, columns].argmax(1) for columns in group.columns])
    (parts, shift), (whole, whole_shift) = exact(x, group, 97), exact(x, group, len(x))
    for fold in range(FOLDS):
        fitted = group.fold_N != fold
        for shuffled in range(2):
            theirs = Theirs(all_x[fitted], answers[shuffled][fitted], penalty)
            expected = theirs.model.predict_proba((all_x - theirs.mean) / theirs.std)
            for fits, taken in ((parts, shift), (whole, whole_shift)):
                ours = fits[2 * fold + shuffled]
                found = (torch.from_numpy(all_x - taken) @ ours.weights_DC + ours.constant_C).softmax(1).numpy()
                assert np.allclose(found, expected, atol=1e-7)
                weights = ours.weights_DC.numpy() * theirs.std[:, None]
                own = weights[:, [1]] - weights[:, [0]] if classes == 2 else weights
                assert np.allclose(own.T, theirs.model.coef_, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_hits_and_penalties_are_those_of_a_plain_loop(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = states_and_words(classes)
    group, all_x = group_of(y, classes), x.astype(np.float64)
    (as_ever,), _ = probe_with_fits(blocks_of(x, 97), group, len(y), CPU)
    monkeypatch.setattr("coat.analysis.probing.fitting.TOLERANCE", 1e-6)  # shuffled words have near ties of penalties
    monkeypatch.setattr("coat.analysis.probing.fitting.MOST_PASSES", 300)
    (sums,), fits = probe_with_fits(blocks_of(x, 97), group, len(y), CPU)
    fold_N = fold_numbers(np.arange(len(y)), FOLDS)
    for shuffled, own in enumerate((y, y[shuffled_rows(np.arange(len(y)))])):
        hits = np.zeros(len(y), bool)
        for fold in range(FOLDS):
            inner, tested = fold_N == (fold + 1) % FOLDS, fold_N == fold
            train = ~inner & ~tested
            deviances = [Theirs(all_x[train], own[train], p).deviance(all_x[inner], own[inner]) for p in PENALTIES]
            best = PENALTIES[int(np.argmin(deviances))]
            assert fits[fold].penalties[shuffled] == best
            hits[tested] = Theirs(all_x[~tested], own[~tested], best).hits(all_x[tested], own[tested])
        assert sums[:, 2 * shuffled].tolist() == hits.tolist()
        assert sums[:, 2 * shuffled + 1].tolist() == [1.0] * len(y)
    assert not any(fit.unfinished for fit in fits.values())
    assert (as_ever[:, 0] != sums[:, 0]).mean() <= 0.01  # the tolerance moves what lies on the border
    assert sums[:, 0].mean() > 0.6
    assert sums[:, 2].mean() == pytest.approx(1 / classes, abs=0.12)  # shuffled: chance


def predicted(fits: dict[int, FoldFit], group: TargetGroup, x: np.ndarray, first: int) -> np.ndarray:
    taken = x[:first].astype(np.float64).mean(0)
    found = np.zeros((len(x), group.y_NC.shape[1]))
    for fold, fit in fits.items():
        at = group.fold_N == fold
        found[at] = fit.predict(torch.from_numpy(x[at].astype(np.float64) - taken)).numpy()
    return found


def test_dimensions_that_tell_nothing_do_nothing() -> None:
    """One never changes; one changes in a single fold, which the others' fits must not fall for; one is a copy."""
    x, y = states_and_words(4)
    group = group_of(y, 4)
    only_fold = np.where(group.fold_N == 2, np.random.default_rng(0).normal(size=len(y)) * 1e6, 7.0)
    constant = np.column_stack([x, np.full(len(y), 3.3e4), only_fold]).astype(np.float32)
    sums, fits = probe_with_fits(blocks_of(x, 97), group, len(y), CPU)
    with_more, more = probe_with_fits(blocks_of(constant, 97), group, len(y), CPU)
    assert (fits[2].penalties, fits[2].unfinished) == (more[2].penalties, ())
    assert not more[2].weights_DC[-2:].any()
    at = group.fold_N == 2
    assert np.array_equal(sums[0][at], with_more[0][at])
    assert np.isfinite(predicted(more, group, constant, 97)).all()
    copies = np.column_stack([x, x]).astype(np.float32)
    twice, _ = probe_with_fits(blocks_of(copies, 97), group, len(y), CPU)
    assert twice[0][:, 0].mean() == pytest.approx(sums[0][:, 0].mean(), abs=0.05)


def test_separable_words_and_more_dimensions_than_rows() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(3, size=60)
    x = rng.normal(size=(60, 100)).astype(np.float32)
    x[:, :60] += 20 * np.tile(np.eye(3, dtype=np.float32)[y], 20)
    group = group_of(y, 3, 5)
    (sums,), fits = probe_with_fits(blocks_of(x, 97), group, 60, CPU)
    assert sums[:, 0].mean() == 1.0
    assert 0.1 < sums[:, 2].mean() < 0.6
    assert np.isfinite(predicted(fits, group, x, 97)).all()
    assert not any(fit.unfinished for fit in fits.values())


def test_a_word_that_the_fitted_folds_lack_is_never_said() -> None:
    x, y = states_and_words(3)
    y[:] = np.where(y == 2, 0, y)
    y[[2, 6]] = 2  # both of fold 2, so that no other fit is tested on it
    group = group_of(y, 3)
    (sums,), fits = probe_with_fits(blocks_of(x, 97), group, len(y), CPU)
    found = predicted(fits, group, x, 97)
    assert np.isneginf(found[group.fold_N == 2, 2]).all()
    assert np.isfinite(found[group.fold_N != 2, 2]).all()
    assert sums[[2, 6], 0].tolist() == [0.0, 0.0]
    assert sums[:, 0].mean() > 0.6


def test_noise_is_at_chance_and_ridge_is_there_on_request() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 30)).astype(np.float32), rng.integers(4, size=400)
    group = group_of(y, 4, 5)
    for classifier in ("logistic", "ridge"):
        (sums,), fits = probe_with_fits(blocks_of(x, 97), group, 400, CPU, classifier)
        for score in of_sums("accuracy", sums.sum(0)[None]):
            assert score[0] == pytest.approx(0.25, abs=0.07)
        assert all(len(fit.penalties) == 2 for fit in fits.values())


def test_numbers_beside_words_are_ridge_still() -> None:
    x, y = states_and_words(4)
    numbers = Target("number", (x[:, :2] / 100).astype(np.float32))
    words = group_of(y, 4)
    both = TargetGroup([numbers, *words.targets], words.rows_N, words.group_N, FOLDS)
    run = partial(probe_with_fits, blocks_of(x, 97), groups=len(y), device=CPU)
    (number, word), fits = run(group=both)
    (alone,), _ = run(group=words)
    (by_ridge, _), ridge = run(group=both, classifier="ridge")
    assert np.array_equal(number, by_ridge)
    assert np.array_equal(word, alone)
    assert [fit.penalties[0::2] for fit in fits.values()] == [fit.penalties[0::2] for fit in ridge.values()]


def test_what_is_not_there_after_all_passes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coat.analysis.probing.fitting.MOST_PASSES", 2)
    x, y = states_and_words(4)
    _, fits = probe_with_fits(blocks_of(x, 97), group_of(y, 4), len(y), CPU)
    assert [fit.unfinished for fit in fits.values()] == [(0,)] * FOLDS


def test_few_states_are_read_once_and_many_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = states_and_words(2)
    group, reads = group_of(y, 2), []

    def blocks():
        reads.append(len(x))
        return blocks_of(x, 97)()

    (once,), _ = probe_with_fits(blocks, group, len(y), CPU)
    assert len(reads) == 1
    monkeypatch.setattr("coat.analysis.probing.fitting.KEPT_BYTES", x.nbytes - 1)
    (often,), _ = probe_with_fits(blocks, group, len(y), CPU)
    assert 10 < len(reads) < 200
    assert np.array_equal(once, often)
