"""One choice of several in each frame (emotions, phonemes, speech or not): whether the likeliest one is the same.

    accuracy            the share of frames whose likeliest choice is the target's
    balanced_accuracy   the mean over choices of the share of their own frames; the best constant has 1 / choices

Choices that are the likeliest of no frame are in no mean.

N frames, D choices, C clips, R draws.
"""

from typing import Any

import numpy as np
from torch import Tensor

from coat.trainer.fidelity.measures.measure import Figures, Measure, Part, Record, Weights, mean_of_known, ratio


class ChoiceMeasure(Measure):
    """Of kind distribution. Records: frames of each choice, and those of them that were found."""

    names = ("accuracy", "balanced_accuracy")

    def record(self, outputs_NO: Tensor, target_ND: Tensor) -> Record:
        true_N, found_N = target_ND.argmax(-1).cpu().numpy(), outputs_NO.argmax(-1).cpu().numpy()
        frames_D = np.bincount(true_N, minlength=self.spec.dim)
        return np.concatenate([frames_D, np.bincount(true_N[true_N == found_N], minlength=self.spec.dim)])

    def figures(self, records: Any, weights_RC: Weights) -> Figures:
        frames_RD, found_RD = np.split((weights_RC @ records).astype(float), 2, axis=1)
        return {
            "accuracy": ratio(found_RD.sum(1), frames_RD.sum(1)),
            "balanced_accuracy": mean_of_known(ratio(found_RD, frames_RD)),
        }

    def parts(self, records: Any) -> list[Part]:
        frames_D, found_D = np.split(records.sum(0), 2)
        return [
            Part(name, float(n), {"recall": float(hits / n)}) if n else Part(name, 0.0, {}, "never the likeliest")
            for name, n, hits in zip(self.names_of_dims(), frames_D, found_D, strict=True)
        ]
