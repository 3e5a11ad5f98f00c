"""Heads' outputs in the units of targets, and how far they agree: against formulas and scipy."""

import numpy as np
import pytest
import torch
from scipy import stats

from coat.analysis.listening.agreement import agreement, agreement_text, auc
from coat.analysis.listening.head_values import head_values
from coat.manifests import ExpertInfo
from coat.trainer.model.losses import PITCH_BINS, pitch_bins
from tests.trainer.helpers import SPECS


def expert(name: str, **more: object) -> ExpertInfo:
    dim = SPECS[name].dim
    mean, std = tuple(float(i) for i in range(dim)), tuple(float(i + 1) for i in range(dim - 1)) + (0.0,)
    return ExpertInfo(spec=SPECS[name], samples=1, frames=9, **{"mean": mean, "std": std} | more)  # type: ignore[arg-type]


def exact_pitch(log2_hz: torch.Tensor) -> torch.Tensor:
    """Logits whose softmax is the target's two bins."""
    return torch.log(pitch_bins(log2_hz) + 1e-12)


def test_outputs_become_what_they_were_trained_against() -> None:
    log2_hz_N = torch.tensor([6.0, 7.77, 9.1])
    outputs = torch.cat([exact_pitch(log2_hz_N), torch.tensor([[2.0, 0.5], [-2.0, 1.0], [0.0, 0.0]])], dim=1)
    assert outputs.shape[1] == PITCH_BINS + 2
    one = expert("pitch", std=(1.0, 1.0, 4.0), mean=(7.0, 0.5, -20.0))
    values = head_values(outputs, one)
    np.testing.assert_allclose(values[:, 0], log2_hz_N, atol=1e-4)
    np.testing.assert_allclose(values[:, 1], 1 / (1 + np.exp([-2.0, 2.0, 0.0])), rtol=1e-6)
    np.testing.assert_allclose(values[:, 2], [-18.0, -16.0, -20.0])

    np.testing.assert_allclose(head_values(torch.zeros(2, 5), expert("events")), 0.5)
    prosody = head_values(torch.full((1, 4), 2.0), expert("prosody"))
    np.testing.assert_allclose(prosody, [[0 + 2 * 1, 1 + 2 * 2, 2 + 2 * 3, 3.0]])  # the last never varied


def test_pitch_agreement_is_in_cents() -> None:
    target = np.array([[7.0, 1.0, 0.0], [8.0, 0.9, 0.0], [9.0, 0.1, 0.0], [7.5, 0.7, 0.0]], np.float32)
    heard = target.copy()
    assert agreement(heard, target, expert("pitch")) == {"cents": 0.0, "near": 1.0, "voicing": 1.0}
    heard[:, 0] += 100 / 1200
    heard[2, 0] = 3.0  # where nobody sings it does not count
    heard[0, 1] = 0.2
    found = agreement(heard, target, expert("pitch"))
    assert found["cents"] == pytest.approx(100, abs=1e-3)
    assert (found["near"], found["voicing"]) == (0.0, 0.75)
    assert agreement_text(found) == "100 cents off (median), 0% within 50 cents, voicing alike in 75%"
    silent = agreement(heard, target * (1, 0, 1), expert("pitch"))
    assert agreement_text(silent) == "nothing voiced, voicing alike in 50%"


def test_auc_is_the_probability_of_the_right_order() -> None:
    rng = np.random.default_rng(0)
    scores, present = np.round(rng.random(60), 1).astype(np.float32), rng.random(60) > 0.6
    u = stats.mannwhitneyu(scores[present], scores[~present]).statistic
    assert auc(scores, present) == pytest.approx(u / (present.sum() * (~present).sum()))
    target = np.zeros((4, 5), np.float32)
    target[:2, 1] = 1.0
    heard = np.zeros((4, 5), np.float32)
    heard[:2, 1] = 0.3
    assert agreement(heard, target, expert("events")) == {"auc": 1.0}
    assert agreement_text(agreement(heard, target * 0, expert("events"))) == "no class comes and goes"


def test_cosine_and_r2_are_of_standardised_values_that_ever_varied() -> None:
    rng = np.random.default_rng(1)
    one = expert("mel")
    target = (rng.normal(size=(20, 6)) * one.std + one.mean).astype(np.float32)
    found = agreement(target.copy(), target, one)
    assert found == {"cosine": pytest.approx(1.0), "r2": pytest.approx(1.0)}
    z = ((target - one.mean) / np.where(np.array(one.std) > 0, one.std, 1.0))[:, :5]
    mean = np.broadcast_to(target.mean(0), target.shape).astype(np.float32)
    assert agreement(mean, target, one)["r2"] == pytest.approx(0.0, abs=1e-5)
    opposite = (2 * np.array(one.mean) - target).astype(np.float32)
    assert agreement(opposite, target, one)["cosine"] == pytest.approx(-1.0)
    expected = 1 - np.square(2 * z).sum() / np.square(z - z.mean(0)).sum()
    assert agreement(opposite, target, one)["r2"] == pytest.approx(expected, rel=1e-4)
