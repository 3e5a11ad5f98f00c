"""How close reduced targets are to what was extracted.

    sample = take_evaluation_sample(targets)
    reduction = fit_reduction(compute_statistics(targets), sample, pca=160, dtype="int8")
    print(measure_fidelity(sample, reduction, targets.spec))

N frames, M frames at the reduced rate, D dim, C components.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.targets.coding import decode_frames, encode_frames
from coat.manifests.targets.reduction import Reduction
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.reductions.evaluation_sample import EvaluationSample

HOUR_S = 3600.0


@dataclass(frozen=True)
class Agreement:
    """Of frames with the same frames after a reduction."""

    cosine: float  # mean over frames
    cosine_p5: float  # that 95 % of the frames reach
    relative_error: float  # root of (sum of squared differences / sum of squares)
    explained_variance: float  # 1 - sum of squared differences / sum of squared deviations from the mean


@dataclass(frozen=True)
class Fidelity:
    """The names here are keys of a set's index.json.

    `original`: decoded and brought back to the extracted rate, against what was extracted. `at_rate`: against the
    same frames at the reduced rate, so without the loss of the rate itself. `apart`: measured on held-out utterances.
    """

    frames: int
    apart: bool
    original: Agreement
    at_rate: Agreement
    bytes_per_hour_before: float  # as extracted
    bytes_per_hour: float
    std_ratio_D: tuple[float, ...]  # of a dimension's standard deviation, after / before; 1 where it does not vary

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "std_ratio_D"}


def measure_fidelity(sample: EvaluationSample, reduction: Reduction, spec: TargetSpec) -> Fidelity:
    """Encode and decode the sample, and compare."""
    rate_only = (
        reduction if reduction.rate_hz is None else Reduction.of(spec, rate_hz=reduction.rate_hz, dtype="float32")
    )
    originals, restored, originals_at_rate, at_rate = [], [], [], []
    for frames_ND in sample.utterances:
        decoded_MD = decode_frames(encode_frames(frames_ND, reduction), reduction)
        at_rate.append(decoded_MD)
        restored.append(
            decoded_MD if reduction.rate_hz is None else reduction.rate.upsample(decoded_MD, len(frames_ND))
        )
        originals.append(frames_ND)
        originals_at_rate.append(
            frames_ND if reduction.rate_hz is None else decode_frames(encode_frames(frames_ND, rate_only), rate_only)
        )
    return Fidelity(
        frames=sum(map(len, originals)),
        apart=sample.held_out,
        original=measure_agreement(originals, restored),
        at_rate=measure_agreement(originals_at_rate, at_rate),
        bytes_per_hour_before=spec.bytes_per_second() * HOUR_S,
        bytes_per_hour=reduction.bytes_per_second * HOUR_S,
        std_ratio_D=std_ratio(originals, at_rate),
    )


def std_ratio(before: Sequence[NDArray[Any]], after: Sequence[NDArray[Any]]) -> tuple[float, ...]:
    """Of each dimension's standard deviation: means over time and components left out make targets vary less, and a
    trainer standardises them by the deviation that they have.
    """
    before_D, after_D = (np.concatenate(x).astype(np.float64).std(axis=0) for x in (before, after))
    varies_D = (before_D > 0) & (after_D > 0)
    return tuple(np.divide(after_D, before_D, out=np.ones_like(before_D), where=varies_D).tolist())


def measure_agreement(before: Sequence[NDArray[Any]], after: Sequence[NDArray[Any]]) -> Agreement:
    """Over all frames of all utterances."""
    x_ND = np.concatenate(before).astype(np.float64)
    y_ND = np.concatenate(after).astype(np.float64)
    products_N = np.einsum("nd,nd->n", x_ND, y_ND)
    norms_N = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND) * np.einsum("nd,nd->n", y_ND, y_ND))
    equal_N = (x_ND == y_ND).all(axis=1)  # two frames of zeros have no angle, and agree
    cosines_N = np.where(equal_N, 1.0, products_N / np.where(norms_N > 0, norms_N, 1.0))
    squares, deviations = float((x_ND**2).sum()), float(((x_ND - x_ND.mean(axis=0)) ** 2).sum())
    y_ND -= x_ND
    error = float((y_ND**2).sum())
    return Agreement(
        cosine=float(cosines_N.mean()),
        cosine_p5=float(np.quantile(cosines_N, 0.05)),
        relative_error=float(np.sqrt(error / squares)) if squares else float(error > 0),
        explained_variance=1.0 - error / deviations if deviations else 1.0 - (error > 0),
    )
