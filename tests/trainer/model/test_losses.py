"""Losses against values worked out by hand, and against loops over single frames."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from coat.manifests import ExpertInfo, TargetSpec
from coat.manifests.targets.spec import Kind
from coat.trainer.config.sections import LossConfig
from coat.trainer.model.losses import PITCH_BINS, PITCH_LOW, PITCH_STEP, DistillLoss, pitch_bins, pitch_of
from tests.trainer.helpers import SPECS


def expert(name: str, mean: list[float], std: list[float]) -> ExpertInfo:
    spec: TargetSpec = replace(SPECS[name], dim=len(mean), channels=())
    return ExpertInfo(spec=spec, samples=1, frames=1, mean=tuple(mean), std=tuple(std))


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


ONE = torch.ones(1, 1, dtype=torch.bool)


def test_probabilities_is_the_mean_binary_cross_entropy() -> None:
    loss = DistillLoss(expert("events", [0.0, 0.0], [1.0, 1.0]))
    # logit 0 against 0.25: ln 2; logit ln 3 (p = 0.75) against 1: -ln 0.75
    value = loss(tensor([[[0.0, math.log(3)]]]), tensor([[[0.25, 1.0]]]), ONE)
    assert value.item() == pytest.approx((math.log(2) - math.log(0.75)) / 2, abs=1e-6)


def test_distribution_is_the_divergence_of_the_softmax() -> None:
    loss = DistillLoss(replace_kind(expert("events", [0.0] * 3, [1.0] * 3), "distribution"))
    logits, target = tensor([[[0.0, math.log(2), math.log(5)]]]), tensor([[[0.5, 0.5, 0.0]]])  # softmax 1/8, 2/8, 5/8
    expected = 0.5 * math.log(0.5 / 0.125) + 0.5 * math.log(0.5 / 0.25)
    assert loss(logits, target, ONE).item() == pytest.approx(expected, abs=1e-6)
    assert loss(logits, 0.999 * target, ONE).item() == pytest.approx(expected, abs=1e-6), "float16 sums are not 1"
    agreed = tensor([[[0.125, 0.25, 0.625]]])
    assert loss(logits, agreed, ONE).item() == pytest.approx(0.0, abs=1e-6)


def replace_kind(found: ExpertInfo, kind: Kind) -> ExpertInfo:
    return replace(found, spec=replace(found.spec, kind=kind))


def test_scalars_is_smooth_l1_on_standardised_values_without_dead_dimensions() -> None:
    loss = DistillLoss(expert("prosody", [10.0, 5.0, 3.0], [2.0, 4.0, 0.0]))
    # standardised targets: (14-10)/2 = 2 and (5-5)/4 = 0; errors 2 - 0.5 = 1.5 (linear) and 0.5 (quadratic)
    value = loss(tensor([[[0.5, 0.5, 99.0]]]), tensor([[[14.0, 5.0, 3.001]]]), ONE)
    assert value.item() == pytest.approx(((1.5 - 0.5) + 0.5 * 0.5**2) / 2, abs=1e-6)


def test_scalars_where_no_dimension_varies_is_zero() -> None:
    loss = DistillLoss(expert("prosody", [1.0], [0.0]))
    assert loss(tensor([[[3.0]]]), tensor([[[1.0]]]), ONE).item() == 0.0


def test_representation_adds_the_cosine() -> None:
    loss = DistillLoss(expert("mel", [1.0, 1.0, 7.0], [1.0, 2.0, 0.0]))
    # standardised target (3, 4); prediction (4, 3): cosine 24/25, both errors 1 -> smooth L1 0.5
    value = loss(tensor([[[4.0, 3.0, 50.0]]]), tensor([[[4.0, 9.0, 7.0]]]), ONE)
    assert value.item() == pytest.approx(1 - 24 / 25 + 0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("form", "expected"), [("cosine", 1 - 24 / 25), ("smooth_l1", 0.5), ("mse", 1.0), ("cosine+smooth_l1", 0.54)]
)
def test_representation_has_the_terms_of_the_config(form: Any, expected: float) -> None:
    loss = DistillLoss(expert("mel", [1.0, 1.0, 7.0], [1.0, 2.0, 0.0]), LossConfig(representation=form))
    value = loss(tensor([[[4.0, 3.0, 50.0]]]), tensor([[[4.0, 9.0, 7.0]]]), ONE)
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_scalars_by_squares() -> None:
    loss = DistillLoss(expert("prosody", [10.0, 5.0, 3.0], [2.0, 4.0, 0.0]), LossConfig(scalars="mse"))
    value = loss(tensor([[[0.5, 0.5, 99.0]]]), tensor([[[14.0, 5.0, 3.001]]]), ONE)
    assert value.item() == pytest.approx((1.5**2 + 0.5**2) / 2, abs=1e-6)


def test_weights_are_by_expert_then_by_family() -> None:
    table = LossConfig(weights={"mel": 3.0}, families={"pitch": 2.0, "reconstruction": 0.5}, default=0.25)
    found = [table.weight("mel", "reconstruction"), table.weight("codec", "reconstruction")]
    assert [*found, table.weight("crepe", "pitch"), table.weight("vad", "affect")] == [3.0, 0.5, 2.0, 0.25]


def pitch_outputs(logits_P: torch.Tensor, voicing: float, rest: list[float]) -> torch.Tensor:
    return torch.cat([logits_P, tensor([voicing, *rest])])[None, None]


def test_pitch_where_voiced() -> None:
    loss = DistillLoss(expert("pitch", [8.0, 0.5, -20.0], [1.0, 0.3, 10.0]))
    log2_f0 = PITCH_LOW + 10.25 * PITCH_STEP  # three quarters bin 10, one quarter bin 11
    logits_P = torch.zeros(PITCH_BINS)
    logits_P[10] = math.log(100.0)
    total = 100.0 + PITCH_BINS - 1
    ce = -(0.75 * math.log(100 / total) + 0.25 * math.log(1 / total))
    bce = -math.log(0.75)  # voicing 1 against logit ln 3
    scalar = 0.5 * 0.5**2  # loudness -10 standardised is 1; predicted 0.5
    value = loss(pitch_outputs(logits_P, math.log(3), [0.5]), tensor([[[log2_f0, 1.0, -10.0]]]), ONE)
    assert value.item() == pytest.approx(ce + bce + scalar, rel=1e-4)


def test_pitch_of_unvoiced_frames_has_no_cross_entropy() -> None:
    loss = DistillLoss(expert("pitch", [8.0, 0.5, -20.0], [1.0, 0.3, 10.0]))
    wild_P = torch.randn(PITCH_BINS) * 20
    value = loss(pitch_outputs(wild_P, 0.0, [1.0]), tensor([[[7.0, 0.49, -10.0]]]), ONE)
    assert value.item() == pytest.approx(math.log(2), abs=1e-5)


def test_pitch_bins_keep_the_exact_pitch() -> None:
    log2_f0 = tensor([[PITCH_LOW, 7.3219, 8.78136, 11.03]])
    bins_BNP = pitch_bins(log2_f0)
    assert torch.allclose(bins_BNP.sum(-1), torch.ones(1, 4), atol=1e-4)
    back = pitch_of(torch.log(bins_BNP + 1e-12))
    assert torch.allclose(back, log2_f0, atol=1e-3)


@pytest.mark.parametrize("name", ["pitch", "mel", "events", "prosody"])
def test_a_batch_is_the_sum_of_its_frames_and_masked_ones_count_nothing(name: str) -> None:
    torch.manual_seed(3)
    dim = SPECS[name].dim
    info = expert(name, [0.3] * dim, [1.0] * (dim - 1) + [0.5])
    loss = DistillLoss(info)
    predicted_BNO = torch.randn(3, 7, DistillLoss.outputs(info))
    target_BND = torch.rand(3, 7, dim) + (6.0 if name == "pitch" else 0.0) * (torch.arange(dim) == 0)
    mask_BN = torch.rand(3, 7) < 0.6
    alone = [
        loss(predicted_BNO[b : b + 1, n : n + 1], target_BND[b : b + 1, n : n + 1], ONE).item()
        for b in range(3)
        for n in range(7)
        if mask_BN[b, n]
    ]
    predicted_BNO[~mask_BN] = 1e6  # whatever stands there
    assert loss(predicted_BNO, target_BND, mask_BN).item() == pytest.approx(sum(alone), rel=1e-5)
    assert loss(predicted_BNO, target_BND, torch.zeros_like(mask_BN)).item() == 0.0


def test_losses_are_float32_under_autocast() -> None:
    loss = DistillLoss(expert("mel", [0.0, 0.0], [1.0, 1.0]))
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(torch.randn(1, 1, 2).bfloat16(), tensor([[[1.0, 2.0]]]), ONE)
    assert value.dtype == torch.float32
