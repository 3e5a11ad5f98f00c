"""Probabilities of classes that sound at once (events, instruments, voice activity): mAP and AUC by class.

    map   the mean over classes of average precision (scikit-learn's: no interpolation)
    auc   the mean over classes of the area under the ROC curve: how often a frame with the class is ranked above one
          without; 0.5 by chance

A class is present in a frame where its target is at least `present`. Classes that are present in no frame, or in all,
have no figure and are in no mean.

Only ranks count, so scores are kept as BINS steps of the logit, and a record is how many frames of the clip each
class has in each step, with and without the class: no score of a frame is kept. Scores of one step count as equal.

N frames, D classes, C clips, R draws, B bins.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.trainer.fidelity.measures.measure import Figures, Measure, Part, Record, Weights, mean_of_known, ratio

PRESENT = 0.5  # from this probability on a class is there
LARGEST_LOGIT = 16.0
BINS = 1024  # of 1/32 in the logit: at a probability of 0.5 under 1 percentage point, at 0.01 a thirtieth of it


class ClassMeasure(Measure):
    """Of kind probabilities. A record is `[2, S]`: codes ((class, present or not, step) as one number) and counts."""

    names = ("map", "auc")
    draws = 400

    def __init__(self, expert: ExpertInfo, present: float = PRESENT) -> None:
        super().__init__(expert)
        self.present = present

    def record(self, outputs_NO: Tensor, target_ND: Tensor) -> Record:
        logits_ND = outputs_NO.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).double()
        bins_ND = ((logits_ND + LARGEST_LOGIT) * (BINS / (2 * LARGEST_LOGIT))).long().clamp(max=BINS - 1).cpu().numpy()
        there_ND = target_ND.cpu().numpy() >= self.present
        codes_ND = (2 * np.arange(self.spec.dim) + there_ND) * BINS + bins_ND
        return np.stack(np.unique(codes_ND, return_counts=True)).astype(np.int32)

    def stack(self, records: Sequence[Record]) -> Any:
        """Sparse, `[C, D * 2 * B]`."""
        starts = np.cumsum([0, *(record.shape[1] for record in records)])
        codes, counts = np.concatenate(records, axis=1)
        return csr_array((counts.astype(np.float64), codes, starts), shape=(len(records), self.spec.dim * 2 * BINS))

    def by_class(self, records: Any, weights_RC: Weights) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
        """`map` and `auc` of each class, `[R, D]`, NaN of those that are never there; frames and clips that have it,
        `[D, 2]`.

        A class at a time, of the steps that any clip has: memory is `[R, 2 * B]`.
        """
        shape = (len(weights_RC), self.spec.dim)
        precision_RD, area_RD, present_D2 = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros((self.spec.dim, 2))
        columns = records.tocsc()
        for d in range(self.spec.dim):
            without_CB, with_CB = (columns[:, (2 * d + i) * BINS : (2 * d + i + 1) * BINS] for i in (0, 1))
            frames_C = with_CB.sum(1)
            present_D2[d] = frames_C.sum(), (frames_C > 0).sum()
            if frames_C.any():
                used = np.flatnonzero(without_CB.sum(0) + with_CB.sum(0))[::-1]  # the highest first
                with_RB, without_RB = (np.asarray(weights_RC @ part_CB[:, used]) for part_CB in (with_CB, without_CB))
                precision_RD[:, d], area_RD[:, d] = ranking(with_RB, without_RB)
        return {"map": precision_RD, "auc": area_RD}, present_D2

    def figures(self, records: Any, weights_RC: Weights) -> Figures:
        found, _ = self.by_class(records, weights_RC)
        return {name: mean_of_known(values_RD) for name, values_RD in found.items()}

    def parts(self, records: Any) -> list[Part]:
        found, present_D2 = self.by_class(records, np.ones((1, records.shape[0])))
        parts = []
        for d, name in enumerate(self.names_of_dims()):
            frames, clips = float(present_D2[d, 0]), int(present_D2[d, 1])
            figures = {"ap": float(found["map"][0, d]), "auc": float(found["auc"][0, d])}
            problem = "" if np.isfinite(figures["auc"]) else "in every frame" if frames else "in no frame"
            parts.append(Part(name, frames, {} if problem else figures, problem, clips))
        return parts


def ranking(with_RB: NDArray[np.float64], without_RB: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Average precision and area under the ROC curve `[R]` of frames by step of the score, the highest first.

    NaN where all frames are of one sort.
    """
    above_with_RB, above_RB = np.cumsum(with_RB, 1), np.cumsum(with_RB + without_RB, 1)
    total_R, total_without_R = above_with_RB[:, -1], without_RB.sum(1)
    precision_R = ratio((with_RB * np.nan_to_num(ratio(above_with_RB, above_RB))).sum(1), total_R)
    below_RB = total_without_R[:, None] - np.cumsum(without_RB, 1)
    area_R = ratio((with_RB * (below_RB + without_RB / 2)).sum(1), total_R * total_without_R)
    return np.where(np.isfinite(area_R), precision_R, np.nan), area_R
