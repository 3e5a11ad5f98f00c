"""Reductions fitted to a target set. D dim, C components."""

import numpy as np

from coat.manifests.errors import InputError
from coat.manifests.targets.reduction import LARGEST_STEP, ConstantArray, Dtype, PrincipalBasis, Reduction, Scaling
from coat.pipeline.reductions.evaluation_sample import EvaluationSample
from coat.pipeline.statistics.pca import PCA
from coat.pipeline.statistics.statistics import Statistics
from coat.pipeline.statistics.sums import Sums

# Standard deviations that integers by dimension span: what lies further out is clipped. For int4 it is what gives the
# smallest error, between that of a Gaussian (2.5) and that of Whisper's states (docs/log.md).
CLIP_STDS = {"int8": 6.0, "int4": 2.8}


def fit_reduction(
    statistics: Statistics,
    sample: EvaluationSample,
    *,
    rate_hz: float | None = None,
    pca: int | None = None,
    whiten: bool = False,
    topk: int | None = None,
    dtype: Dtype = "float16",
    scaling: Scaling = "frame",
) -> Reduction:
    """InputError where a reduction does not suit the kind of the targets."""
    basis = offset_C = scale_C = None
    clip_stds = CLIP_STDS.get(dtype, 0.0)
    if pca is not None:
        if statistics.pca is None or not 0 < pca <= statistics.spec.dim:
            raise InputError(f"--pca {statistics.spec.expert}={pca}: expected 1 to {statistics.spec.dim} components")
        components = fit_components(statistics, sample)
        size_C = np.sqrt(components.variance_C[:pca]) if whiten else np.ones(pca)
        size_C = np.where(size_C > 0, size_C, 1.0)  # a component without variance stays at 0
        basis = PrincipalBasis(
            ConstantArray.of(components.mean_D), ConstantArray.of(components.axes_CD[:pca]), ConstantArray.of(size_C)
        )
        std_C = np.sqrt(components.variance_C[:pca]) / size_C
        offset_C, reach_C = np.zeros(pca), clip_stds * std_C
    else:
        s = statistics.sums
        offset_C = s.mean_D
        farthest_C = np.maximum(s.high_D - s.mean_D, s.mean_D - s.low_D)
        reach_C = np.minimum(farthest_C, clip_stds * s.std_D)
    if dtype in LARGEST_STEP and scaling == "dimension":
        scale_C = ConstantArray.of(reach_C / LARGEST_STEP[dtype])
    return Reduction.of(
        statistics.spec,
        rate_hz=rate_hz,
        basis=basis,
        topk=topk,
        dtype=dtype,
        scaling=scaling,
        offset_C=ConstantArray.of(offset_C) if scale_C else None,
        scale_C=scale_C,
    )


def fit_components(statistics: Statistics, sample: EvaluationSample) -> PCA:
    """Of all frames but those of the evaluation sample, which are taken out of the sums (Chan's rule, backwards)."""
    total = statistics.sums
    assert statistics.pca is not None
    if not sample.held_out:
        return statistics.pca
    frames_ND = np.concatenate(sample.utterances)
    if statistics.sample is not None:  # the sums have only some of them
        held = [statistics.sample.contains(row.unit, row.first, row.frames) for row in sample.rows]
        frames_ND = frames_ND[np.concatenate(held)]
        if not len(frames_ND):
            return statistics.pca
    part = Sums.of(frames_ND, statistics.spec.kind, covariance=True)
    rest = total.whole - part.whole
    mean_D = total.centre_D + (total.centre_D - part.centre_D) * (part.whole / rest)
    move_D = part.centre_D - mean_D
    assert total.scatter_DD is not None
    assert part.scatter_DD is not None
    scatter_DD = total.scatter_DD - part.scatter_DD - np.outer(move_D, move_D * (rest * part.whole / total.whole))
    return PCA.of(mean_D, scatter_DD / rest)
