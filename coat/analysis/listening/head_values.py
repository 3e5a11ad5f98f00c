"""What a head says, in the units of its expert's targets: log2 Hz, probabilities, decibels, states.

N frames, D dim of the target, O outputs of a head (see trainer/model/losses.py).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.trainer.model.losses import DEAD_STD, PITCH_BINS, SCALARS, pitch_of


def head_values(outputs_NO: Tensor, expert: ExpertInfo) -> NDArray[np.float32]:
    """`[N, D]`, of outputs that are trained against targets of this expert.

    Dimensions that never varied in training have no loss; they are what they always were.
    """
    outputs_NO, kind = outputs_NO.detach().double().cpu(), expert.spec.kind
    if kind == "pitch":
        voicing_N1 = outputs_NO[:, PITCH_BINS : PITCH_BINS + 1].sigmoid()
        rest_ND = unstandardised(outputs_NO[:, PITCH_BINS + 1 :], expert, SCALARS)
        values_ND = torch.cat([pitch_of(outputs_NO)[:, None], voicing_N1, rest_ND], dim=1)
    elif kind == "probabilities":
        values_ND = outputs_NO.sigmoid()
    elif kind == "distribution":
        values_ND = outputs_NO.softmax(-1)
    else:
        values_ND = unstandardised(outputs_NO, expert)
    return values_ND.numpy().astype(np.float32)


def unstandardised(outputs_ND: Tensor, expert: ExpertInfo, first: int = 0) -> Tensor:
    """By the index's mean and std, from dimension `first` on."""
    mean_D, std_D = (torch.tensor(x[first:], dtype=torch.float64) for x in (expert.mean, expert.std))
    return mean_D + outputs_ND * torch.where(std_D > DEAD_STD, std_D, 0.0)
