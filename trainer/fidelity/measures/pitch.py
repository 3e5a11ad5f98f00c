"""f0: the measures of melody extraction by mir_eval (Raffel et al. 2014), over all frames of all clips.

    raw_pitch_accuracy    of voiced frames, the share whose f0 is within 50 cents, whatever is said of voicing
    raw_chroma_accuracy   the same, octaves forgiven
    voicing_recall        of voiced frames, the share that is called voiced
    voicing_false_alarm   of unvoiced frames, the share that is called voiced: the less the better
    overall_accuracy      of all frames, the share that is right in voicing and, where voiced, in f0

A frame is voiced where the target's voicing is 0.5 or more and it has an f0, as in the loss. Channels beyond the two
have R2 and CCC (`channels.py`).

N frames, D dims, C clips, R draws.
"""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.trainer.fidelity.measures.channels import ChannelSums
from coat.trainer.fidelity.measures.measure import Figures, Measure, Part, Record, Weights, mean_of_known, ratio
from coat.trainer.model.losses import LOG2_F0, PITCH_BINS, SCALARS, VOICED, VOICING, pitch_bins, pitch_of

LOG2_MIR_BASE = np.log2(10.0)  # mir_eval counts cents from 10 Hz
CENTS = 1200  # of an octave
ERROR_BINS = 98  # of 25 cents, from -1200 to 1200; the first and the last are of all beyond
ERROR_EDGES = np.concatenate([[-np.inf], np.linspace(-CENTS, CENTS, ERROR_BINS - 1), [np.inf]])
COUNTS = 7  # frames, voiced, right pitch, right chroma, called voiced of voiced, of unvoiced, right overall


class PitchMeasure(Measure):
    names = (
        "raw_pitch_accuracy", "raw_chroma_accuracy", "voicing_recall", "voicing_false_alarm", "overall_accuracy",
    )  # fmt: skip

    def __init__(self, expert: ExpertInfo) -> None:
        super().__init__(expert)
        self.rest = ChannelSums(expert.mean[SCALARS:], expert.std[SCALARS:]) if self.spec.dim > SCALARS else None
        if self.rest is not None:
            self.names = (*PitchMeasure.names, "r2_others", "ccc_others")

    def record(self, outputs_NO: Tensor, target_ND: Tensor) -> Record:
        from mir_eval import melody

        log2_f0_N = target_ND[:, LOG2_F0].double().cpu().numpy()
        voiced_N = (target_ND[:, VOICING].cpu().numpy() >= VOICED) & (log2_f0_N > 0)
        said_N = outputs_NO[:, PITCH_BINS].cpu().numpy() >= 0  # a logit
        true_N = np.where(voiced_N, cents(log2_f0_N), 0.0)  # mir_eval's sign of no pitch
        found_N = cents(pitch_of(outputs_NO).double().cpu().numpy())
        arrays = (voiced_N.astype(float), true_N, said_N.astype(float), found_N)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* melody has no voiced frames")
            recall, false_alarm = melody.voicing_measures(arrays[0], arrays[2])
            pitch, chroma = melody.raw_pitch_accuracy(*arrays), melody.raw_chroma_accuracy(*arrays)
            overall = melody.overall_accuracy(*arrays)
        frames, voiced = len(voiced_N), int(voiced_N.sum())
        counts = [frames, voiced, pitch * voiced, chroma * voiced, recall * voiced, false_alarm * (frames - voiced)]
        histogram = np.histogram((found_N - true_N)[voiced_N], ERROR_EDGES)[0]
        parts = [np.round([*counts, overall * frames]), histogram]
        if self.rest is not None:
            parts.append(self.rest.record(outputs_NO[:, PITCH_BINS + 1 :], target_ND[:, SCALARS:]))
        return np.concatenate(parts).astype(np.float64)

    def figures(self, records: Any, weights_RC: Weights) -> Figures:
        frames, voiced, pitch, chroma, recalled, alarms, right = (weights_RC @ records[:, :COUNTS]).T
        found = {
            "raw_pitch_accuracy": ratio(pitch, voiced),
            "raw_chroma_accuracy": ratio(chroma, voiced),
            "voicing_recall": ratio(recalled, voiced),
            "voicing_false_alarm": ratio(alarms, frames - voiced),
            "overall_accuracy": ratio(right, frames),
        }
        if self.rest is not None:
            others = self.rest.by_channel(records[:, COUNTS + ERROR_BINS :], weights_RC)
            found |= {f"{name}_others": mean_of_known(values_RD) for name, values_RD in others.items()}
        return found

    def parts(self, records: Any) -> list[Part]:
        if self.rest is None:
            return []
        return self.rest.parts(records[:, COUNTS + ERROR_BINS :], self.names_of_dims()[SCALARS:])

    def errors(self, records: Any) -> NDArray[np.float64]:
        """Voiced frames by how many cents the prediction is above the target, `[ERROR_BINS]`."""
        return records[:, COUNTS : COUNTS + ERROR_BINS].sum(0)

    def constant_outputs(self) -> Tensor:
        """The mean pitch, and voiced throughout where most of it is."""
        outputs_O = super().constant_outputs()
        outputs_O[:PITCH_BINS] = torch.log(pitch_bins(torch.tensor([[mean_pitch(self.expert)]]))[0, 0] + 1e-12)
        return outputs_O


def mean_pitch(expert: ExpertInfo) -> float:
    """log2 Hz, of voiced frames as far as the index can tell.

    Some experts write 0 where there is no pitch. Their variance is then at least what these zeros give,
    mean^2 (1 - v) / v with v the mean voicing; so much has no pitch that is given throughout.
    """
    mean, std, voicing = expert.mean[LOG2_F0], expert.std[LOG2_F0], expert.mean[VOICING]
    has_zeros = 0 < voicing < 1 and std**2 >= mean**2 * (1 - voicing) / voicing
    return mean / voicing if has_zeros else mean


def cents(log2_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return CENTS * (log2_hz - LOG2_MIR_BASE)
