"""Scales of losses against the best constant prediction, which gradient descent on the loss itself finds."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.manifests.targets.spec import Kind
from coat.trainer.config.sections import HeadsConfig, LossConfig
from coat.trainer.model.batch import Targets
from coat.trainer.model.heads import DistillHeads
from coat.trainer.model.loss_scales import expert_weights, loss_of_mean, loss_scales, outputs_of_mean
from coat.trainer.model.losses import PITCH_BINS, PITCH_LOW, PITCH_STEP, DistillLoss
from tests.trainer.helpers import SPECS

FRAMES = 600


def expert_of(kind: Kind, targets_ND: Tensor) -> ExpertInfo:
    """With the statistics that an index would have of these targets."""
    spec = replace(SPECS["pitch" if kind == "pitch" else "mel"], kind=kind, dim=targets_ND.shape[1], channels=())
    mean, std = targets_ND.double().mean(0), targets_ND.double().std(0, correction=0)
    return ExpertInfo(spec=spec, samples=1, frames=FRAMES, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def targets_of(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    if kind == "pitch":
        at_N = torch.rand(FRAMES, generator=generator) * (PITCH_BINS - 1)
        voicing_N = (torch.rand(FRAMES, generator=generator) < 0.7).float()
        log2_f0_N = (PITCH_LOW + at_N * PITCH_STEP) * voicing_N  # none where unvoiced, as experts store it
        return torch.stack([log2_f0_N, voicing_N, torch.randn(FRAMES, generator=generator)], 1)
    normal_ND = torch.randn(FRAMES, 12, generator=generator)
    if kind == "probabilities":  # rare events, and one that is always there
        return (normal_ND - 3 + 6 * (torch.arange(12) == 4)).sigmoid()
    if kind == "sure":
        return torch.nn.functional.one_hot(normal_ND.argmax(1), 12).float()
    if kind == "unsure":
        return (0.1 * normal_ND).softmax(1)
    return 3 + 2 * normal_ND


def least_constant_loss(loss: DistillLoss, targets_ND: Tensor) -> float:
    """Per frame, of the best of all constant predictions."""
    outputs_O = torch.zeros(PITCH_BINS + 2 if loss.kind == "pitch" else targets_ND.shape[1], requires_grad=True)
    with torch.no_grad():  # a cosine has no gradient at 0
        outputs_O += 0.01 * torch.randn(outputs_O.shape, generator=torch.Generator().manual_seed(1))
    optimizer, mask_BN = torch.optim.Adam([outputs_O], lr=0.1), torch.ones(1, len(targets_ND), dtype=torch.bool)
    least = math.inf
    for _ in range(250):
        value = loss(outputs_O.expand(1, len(targets_ND), -1), targets_ND[None], mask_BN) / len(targets_ND)
        least = min(least, value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return least


@pytest.mark.parametrize(
    ("kind", "data", "options", "above"),
    [
        ("probabilities", "probabilities", {}, (0.999, 1.001)),
        ("distribution", "sure", {}, (0.99, 1.01)),
        ("distribution", "unsure", {}, (1.0, 2.1)),
        ("pitch", "pitch", {}, (0.98, 1.15)),
        ("representation", "normal", {}, (0.97, 1.1)),
        ("representation", "normal", {"representation": "mse"}, (0.97, 1.03)),
        ("representation", "normal", {"representation": "cosine"}, (0.97, 1.1)),
        ("scalars", "normal", {}, (0.97, 1.03)),
        ("scalars", "normal", {"scalars": "mse"}, (0.97, 1.03)),
    ],
)
def test_the_scale_is_what_the_best_constant_loses(
    kind: Kind, data: str, options: dict[str, Any], above: tuple[float, float]
) -> None:
    targets_ND, config = targets_of(data), LossConfig(**options)
    expert = expert_of(kind, targets_ND)
    least = least_constant_loss(DistillLoss(expert, config), targets_ND)
    assert above[0] * least <= loss_of_mean(expert, config) <= above[1] * least


@pytest.mark.parametrize(
    ("kind", "data"),
    [("probabilities", "probabilities"), ("distribution", "sure"), ("pitch", "pitch"), ("scalars", "normal")],
)
def test_a_head_begins_at_the_mean(kind: Kind, data: str) -> None:
    targets_ND = targets_of(data)
    expert = expert_of(kind, targets_ND)
    loss = DistillLoss(expert)
    mask_BN = torch.ones(1, FRAMES, dtype=torch.bool)
    said = loss(outputs_of_mean(expert).expand(1, FRAMES, -1), targets_ND[None], mask_BN).item() / FRAMES
    assert said == pytest.approx(least_constant_loss(loss, targets_ND), rel=0.15)
    for scale, begins in (("prior", True), ("none", False)):
        torch.manual_seed(0)
        heads = DistillHeads(HeadsConfig(dim=16, layers=1, heads=2), 8, {"x": expert}, LossConfig(scale=scale))  # type: ignore[arg-type]
        bias = heads.groups["x"].outputs["x"][1].bias  # type: ignore[index, union-attr]
        assert torch.equal(bias, outputs_of_mean(expert)) == begins


def test_targets_that_never_vary_are_not_blown_up() -> None:
    for kind in ("scalars", "representation", "probabilities", "distribution"):
        expert = expert_of(kind, torch.tensor([[0.0, 1.0]]).expand(FRAMES, 2))  # type: ignore[arg-type]
        assert loss_of_mean(expert, LossConfig(representation="mse")) == 1e-4


def test_weights_are_divided_by_the_scale_or_left() -> None:
    experts = {"mel": expert_of("representation", targets_of("normal")), "f0": expert_of("pitch", targets_of("pitch"))}
    config = LossConfig(weights={"mel": 3.0}, default=0.5, scale="prior")
    scales = loss_scales(config, experts)
    assert expert_weights(config, experts) == {"mel": 3.0 / scales["mel"], "f0": 0.5 / scales["f0"]}
    assert min(scales.values()) > 1
    none = config.model_copy(update={"scale": "none"})
    assert expert_weights(none, experts) == {"mel": 3.0, "f0": 0.5}


def test_sound_events_pull_about_as_hard_as_pitch() -> None:
    """527 classes of which few sound, beside pitch: hundreds of times less without a scale."""
    generator = torch.Generator().manual_seed(2)
    events_ND = (0.3 * torch.randn(FRAMES, 527, generator=generator) - 6).sigmoid()
    events_ND[torch.arange(FRAMES), torch.randint(0, 12, (FRAMES,), generator=generator)] = 0.8
    targets = {"pitch": targets_of("pitch"), "events": events_ND}
    kinds: dict[str, Kind] = {"pitch": "pitch", "events": "probabilities"}
    experts = {name: expert_of(kinds[name], frames_ND) for name, frames_ND in targets.items()}
    pulls = {scale: pull_of(experts, targets, LossConfig(scale=scale)) for scale in ("none", "prior")}  # type: ignore[arg-type]
    assert pulls["none"]["pitch"] > 100 * pulls["none"]["events"]
    assert 1 / 5 < pulls["prior"]["pitch"] / pulls["prior"]["events"] < 5


def pull_of(experts: dict[str, ExpertInfo], targets: dict[str, Tensor], config: LossConfig) -> dict[str, float]:
    """Norm of each weighted mean loss's gradient at the states, when the heads have learnt for some steps."""
    torch.manual_seed(0)
    heads = DistillHeads(HeadsConfig(dim=32, layers=1, heads=2), 16, experts, config)
    batch = {n: Targets(t[None], torch.ones(1, FRAMES, dtype=torch.bool)) for n, t in targets.items()}
    states_BKD = torch.randn(1, 25, 16).requires_grad_()
    mask_BK, seconds_B = torch.ones(1, 25, dtype=torch.bool), torch.tensor([2.0])
    weights, optimizer = expert_weights(config, experts), torch.optim.Adam(heads.parameters(), lr=3e-3)
    for _ in range(40):
        losses = heads(states_BKD.detach(), mask_BK, seconds_B, batch)
        optimizer.zero_grad()
        sum(weights[n] * loss / FRAMES for n, loss in losses.items()).backward()  # type: ignore[union-attr]
        optimizer.step()
    losses = heads(states_BKD, mask_BK, seconds_B, batch)
    gradients = {n: torch.autograd.grad(loss / FRAMES, states_BKD)[0] for n, loss in losses.items()}
    return {n: weights[n] * gradient.norm().item() for n, gradient in gradients.items()}
