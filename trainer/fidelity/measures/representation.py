"""Hidden states of an expert: direction, value, and whether a frame is told from the others of its clip.

    cosine      mean over frames, of standardised values as the loss has them: the training mean is 0 there
    r2          1 - squared error / squared deviations from the mean of these frames, over all dims together
    retrieval   the share of frames whose prediction is closer (cosine) to the target of its own frame than to that of
                any other of the clip; frames that are equally close share it
    retrieval_chance   1 / frames of the clip, the mean over frames

Dims that never varied in training are left out.

N frames, D dims, C clips, R draws.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.trainer.fidelity.measures.measure import Figures, Measure, Record, Weights, ratio
from coat.trainer.model.losses import DEAD_STD

QUERIES = 256  # frames that are compared with all of their clip at a time
EQUAL = 1e-5  # cosines that differ by less are equally close: float32 is no finer over some thousand dims
COUNTS = 6  # frames, cosines, squared errors, squares, retrieved, expected by chance; then the sum of each dim


class RepresentationMeasure(Measure):
    names = ("cosine", "r2", "retrieval", "retrieval_chance")

    def __init__(self, expert: ExpertInfo) -> None:
        super().__init__(expert)
        std_D = torch.tensor(expert.std, dtype=torch.float64)
        self.alive_D = std_D > DEAD_STD
        self.mean_D = torch.tensor(expert.mean, dtype=torch.float64)[self.alive_D]
        self.std_D = std_D[self.alive_D]

    def record(self, outputs_NO: Tensor, target_ND: Tensor) -> Record:
        alive_D = self.alive_D.to(outputs_NO.device)
        x_ND = outputs_NO[:, alive_D].double()
        y_ND = (target_ND[:, alive_D].double() - self.mean_D.to(x_ND.device)) / self.std_D.to(x_ND.device)
        frames = len(x_ND)
        counts = torch.stack([
            torch.tensor(float(frames), dtype=torch.float64, device=x_ND.device),
            F.cosine_similarity(x_ND, y_ND, dim=-1).sum(),
            (x_ND - y_ND).square().sum(),
            y_ND.square().sum(),
            retrieved(x_ND.float(), y_ND.float()),
            torch.tensor(1.0, dtype=torch.float64, device=x_ND.device),  # frames * 1 / frames
        ])  # fmt: skip
        return torch.cat([counts, y_ND.sum(0)]).cpu().numpy()

    def figures(self, records: Any, weights_RC: Weights) -> Figures:
        totals_RS = weights_RC @ records
        frames, cosines, errors, squares, hits, chance = totals_RS[:, :COUNTS].T
        spread = squares - ratio((totals_RS[:, COUNTS:] ** 2).sum(1), frames)
        known = np.where(len(self.mean_D), frames, 0.0)
        return {
            "cosine": ratio(cosines, known),
            "r2": 1 - ratio(errors, np.where(spread > 1e-9 * frames, spread, 0.0)),
            "retrieval": ratio(hits, known),
            "retrieval_chance": ratio(chance, known),
        }


def retrieved(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    """Frames whose own target is the closest of all; of n that are equally close, 1 / n. A scalar in float64."""
    x_ND, y_ND = F.normalize(x_ND, dim=-1), F.normalize(y_ND, dim=-1)
    hits = torch.zeros((), dtype=torch.float64, device=x_ND.device)
    for start in range(0, len(x_ND), QUERIES):
        cosines_QN = x_ND[start : start + QUERIES] @ y_ND.T
        closest_QN = cosines_QN >= cosines_QN.max(1, keepdim=True).values - EQUAL
        own_Q = closest_QN.diagonal(start)
        hits += (own_Q / closest_QN.sum(1)).double().sum()
    return hits
