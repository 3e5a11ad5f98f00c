"""What a head loses that knows nothing: the unit in which `losses.scale = "prior"` weighs the losses of all kinds.

Such a head says the same of every frame, the best that one can say of all: the training mean. What that costs a
frame differs by kind as their formulas do (a mean over 527 classes of which few sound; a sum over 331 bins), and is
known from the mean and std of `index.json` alone. A head begins by saying it (`outputs_of_mean`), and divided by it
every loss begins at about 1 and goes towards its floor, so that equal weights are one footing.

D dim of the target, O outputs of a head, P pitch bins.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.trainer.config.sections import LossConfig
from coat.trainer.model.batch import expert_of, is_at_audio
from coat.trainer.model.losses import DEAD_STD, PITCH_BINS, SCALARS, VOICING, DistillLoss

# Mean losses of saying 0 of a standard normal: E min(z^2 / 2, |z| - 1/2), and E z^2.
STANDARDISED = {"smooth_l1": 0.4247, "mse": 1.0}
COSINE = 1.0  # of any direction with standardised ones: they lie on all sides of it
SMALLEST = 1e-4  # nats: targets that hardly vary have nothing to teach, and are not blown up
RAREST = 1e-4  # probability of a class that is never there


def loss_scales(config: LossConfig, experts: Mapping[str, ExpertInfo]) -> dict[str, float]:
    """What the mean loss of each expert is divided by, before its weight."""
    return {name: 1.0 if config.scale == "none" else loss_of_mean(expert, config) for name, expert in experts.items()}


def expert_weights(config: LossConfig, experts: Mapping[str, ExpertInfo]) -> dict[str, float]:
    """What the mean loss of each expert is multiplied by where the stage's `distill` is 1."""
    scales = loss_scales(config, experts)
    return {
        name: config.weight(expert_of(name), expert.spec.family) * (config.audio if is_at_audio(name) else 1.0) / scale
        for (name, expert), scale in zip(experts.items(), scales.values(), strict=True)
    }


def loss_of_mean(expert: ExpertInfo, config: LossConfig) -> float:
    """The loss a frame of the best constant prediction, in the loss's own unit; above 0.

    probabilities: exact (BCE is linear in the target). distribution: a bound from above, at most twice the value where
    targets vary little. representation, scalars: of standardised values that are normal. pitch: as if pitches lay
    evenly over all bins, in as many frames as voicing says.
    """
    kind, mean, std = expert.spec.kind, expert.mean, expert.std
    if kind == "probabilities":
        loss = sum(map(entropy, mean)) / len(mean)
    elif kind == "distribution":
        loss = divergence_from_mean(mean, std)
    elif kind == "pitch":
        voiced = min(max(mean[VOICING], 0.0), 1.0)
        loss = voiced * math.log(PITCH_BINS) + entropy(voiced)
        loss += scalars_loss(std[SCALARS:], config.scalars)
    elif kind == "representation":
        terms = config.representation.split("+")
        loss = sum(COSINE if term == "cosine" else scalars_loss(std, term) for term in terms)
    else:
        loss = scalars_loss(std, config.scalars)
    return max(loss, SMALLEST)


def outputs_of_mean(expert: ExpertInfo) -> Tensor:
    """What a head gives that says the training mean, `[O]`. Pitches are as likely in all bins."""
    outputs_O = torch.zeros(DistillLoss.outputs(expert))  # the mean, where values are standardised
    mean_D = torch.tensor(expert.mean, dtype=torch.float32).clamp(RAREST, 1 - RAREST)
    if expert.spec.kind == "probabilities":
        outputs_O[:] = mean_D.logit()
    elif expert.spec.kind == "distribution":
        outputs_O[:] = mean_D.log()
    elif expert.spec.kind == "pitch":
        outputs_O[PITCH_BINS] = mean_D[VOICING].logit()
    return outputs_O


def entropy(probability: float) -> float:
    """Of yes or no, in nats: the BCE of saying the mean of targets whose mean this is."""
    return -sum(p * math.log(p) for p in (probability, 1 - probability) if 0 < p < 1)


def scalars_loss(std: Sequence[float], form: str) -> float:
    """0 where no dimension varies, as the loss itself is."""
    return STANDARDISED[form] if any(value > DEAD_STD for value in std) else 0.0


def divergence_from_mean(mean: Sequence[float], std: Sequence[float]) -> float:
    """At least E KL(target || mean): by its entropy where targets are sure, by their variance where they vary little.

    KL <= log(1 + chi^2), whose mean over targets is at most log(1 + sum_d var_d / mean_d) (Jensen).
    """
    total = sum(mean)
    shares = [value / total for value in mean] if total > 0 else []
    chi = sum((s / total) ** 2 / p for s, p in zip(std, shares, strict=False) if p > 0)
    return min(sum(-p * math.log(p) for p in shares if p > 0), math.log1p(chi))
