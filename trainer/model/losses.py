"""Distillation losses by the kind of a target: sums over frames, in float32, to be divided by global counts.

B batch, N frames, D dim of the target, O outputs of a head, P pitch bins. Each function gives a loss per frame
`[B, N]`; masked frames count nothing. "Standardised" is by the mean and std of the shard index; dimensions
that never vary (std 0) are left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coat.manifests import ExpertInfo
from coat.trainer.config.sections import LossConfig

DEAD_STD = 1e-6  # a dimension below this never varies, rounding aside
VOICED = 0.5  # voicing confidence from which a frame has a pitch
# Log-spaced pitch bins: 46.875 Hz (the lowest that trackers report) and 5.5 octaves up, 20 cents each.
PITCH_LOW = 5.5507  # log2 Hz of bin 0
PITCH_STEP = 20 / 1200  # octaves
PITCH_BINS = 331
LOG2_F0, VOICING, SCALARS = 0, 1, 2  # channels of kind pitch; scalars from 2 on


class DistillLoss(nn.Module):
    """The loss of one expert, chosen by the kind of its targets."""

    mean_D: Tensor
    scale_D: Tensor

    def __init__(self, expert: ExpertInfo, config: LossConfig = LossConfig()) -> None:  # noqa: B008
        super().__init__()
        self.kind, self.config = expert.spec.kind, config
        std_D = torch.tensor(expert.std, dtype=torch.float32)
        alive_D = std_D > DEAD_STD
        self.register_buffer("mean_D", torch.tensor(expert.mean, dtype=torch.float32), persistent=False)
        # 1/std, 0 for dead dimensions
        self.register_buffer("scale_D", torch.where(alive_D, 1 / std_D.clamp(min=DEAD_STD), 0.0), persistent=False)

    @staticmethod
    def outputs(expert: ExpertInfo) -> int:
        """O: how many numbers a head gives per frame for this expert."""
        dim = expert.spec.dim
        return PITCH_BINS + dim - 1 if expert.spec.kind == "pitch" else dim

    def forward(self, predicted_BNO: Tensor, target_BND: Tensor, mask_BN: Tensor) -> Tensor:
        """The sum over the frames in the mask, a scalar."""
        with torch.autocast(predicted_BNO.device.type, enabled=False):
            predicted_BNO, target_BND = predicted_BNO.float(), target_BND.float()
            if self.kind == "probabilities":
                loss_BN = F.binary_cross_entropy_with_logits(
                    predicted_BNO, target_BND.clamp(0, 1), reduction="none"
                ).mean(-1)
            elif self.kind == "distribution":
                loss_BN = divergence(predicted_BNO, target_BND)
            elif self.kind == "pitch":
                loss_BN = self.pitch(predicted_BNO, target_BND)
            elif self.kind == "representation":
                loss_BN = self.representation(predicted_BNO, self.standardise(target_BND))
            else:
                loss_BN = self.scalars(predicted_BNO, self.standardise(target_BND), self.scale_D, self.config.scalars)
            return torch.where(mask_BN, loss_BN, 0.0).sum()

    def standardise(self, target_BND: Tensor) -> Tensor:
        return (target_BND - self.mean_D) * self.scale_D

    def representation(self, predicted_BND: Tensor, standardised_BND: Tensor) -> Tensor:
        """The sum of what `losses.representation` names, `[B, N]`."""
        terms = self.config.representation.split("+")
        losses = []
        if "cosine" in terms:
            losses.append(1 - F.cosine_similarity(predicted_BND * (self.scale_D > 0), standardised_BND, dim=-1))
        losses += [self.scalars(predicted_BND, standardised_BND, self.scale_D, t) for t in terms if t != "cosine"]
        return torch.stack(losses).sum(0)

    @staticmethod
    def scalars(predicted_BND: Tensor, standardised_BND: Tensor, scale_D: Tensor, form: str = "smooth_l1") -> Tensor:
        """Smooth-L1 or squares, the mean of the dimensions that vary, `[B, N]`."""
        alive_D = (scale_D > 0).float()
        loss_of = F.mse_loss if form == "mse" else F.smooth_l1_loss
        loss_BND = loss_of(predicted_BND, standardised_BND, reduction="none")
        return (loss_BND * alive_D).sum(-1) / alive_D.sum().clamp(min=1)

    def pitch(self, predicted_BNO: Tensor, target_BND: Tensor) -> Tensor:
        """Cross-entropy over bins where voiced, BCE on voicing, and what `scalars` gives of those that remain."""
        scalars = target_BND.shape[-1] - SCALARS
        logits_BNP, voicing_BN1, rest_BND = predicted_BNO.split([PITCH_BINS, 1, scalars], dim=-1)
        voicing_BN = target_BND[..., VOICING].clamp(0, 1)
        bins_BNP = pitch_bins(target_BND[..., LOG2_F0])
        voiced_BN = (voicing_BN >= VOICED) & (target_BND[..., LOG2_F0] > 0)
        ce_BN = -(bins_BNP * logits_BNP.log_softmax(-1)).sum(-1)
        loss_BN = torch.where(voiced_BN, ce_BN, 0.0)
        loss_BN = loss_BN + F.binary_cross_entropy_with_logits(voicing_BN1[..., 0], voicing_BN, reduction="none")
        if scalars:
            loss_BN = loss_BN + self.scalars(
                rest_BND, self.standardise(target_BND)[..., SCALARS:], self.scale_D[SCALARS:], self.config.scalars
            )
        return loss_BN


def divergence(predicted_BNO: Tensor, target_BNO: Tensor) -> Tensor:
    """Kullback-Leibler, from the target to the softmax of the prediction, `[B, N]`; zero where they agree.

    Stored in float16, a target's sum may be off by a thousandth: it is made 1 again.
    """
    target_BNO = target_BNO.clamp(min=0)
    target_BNO = target_BNO / target_BNO.sum(-1, keepdim=True).clamp(min=1e-6)
    return F.kl_div(predicted_BNO.log_softmax(-1), target_BNO, reduction="none").sum(-1)


def pitch_bins(log2_f0_BN: Tensor) -> Tensor:
    """`[B, N, P]`: each pitch shared by the two bins that it lies between, so that none is rounded away."""
    at_BN = ((log2_f0_BN - PITCH_LOW) / PITCH_STEP).clamp(0, PITCH_BINS - 1)
    distance_BNP = (torch.arange(PITCH_BINS, device=at_BN.device) - at_BN[..., None]).abs()
    return (1 - distance_BNP).clamp(min=0)


def pitch_of(predicted_BNO: Tensor) -> Tensor:
    """log2 Hz that a head's outputs mean (the bins' expectation around the best one), `[B, N]`."""
    probability_BNP = predicted_BNO[..., :PITCH_BINS].softmax(-1)
    bins_P = torch.arange(PITCH_BINS, device=predicted_BNO.device)
    near_BNP = (bins_P - probability_BNP.argmax(-1, keepdim=True)).abs() <= 2
    weight_BNP = probability_BNP * near_BNP
    return PITCH_LOW + PITCH_STEP * (weight_BNP * bins_P).sum(-1) / weight_BNP.sum(-1)
