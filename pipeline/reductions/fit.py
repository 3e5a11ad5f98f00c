"""Reductions fitted to a target set."""

import numpy as np

from coat.manifests.errors import InputError
from coat.manifests.targets.reduction import LARGEST_STEP, ConstantArray, Dtype, PrincipalBasis, Reduction, Scaling
from coat.pipeline.reductions.evaluation_sample import Sample
from coat.pipeline.statistics.pca import PCA
from coat.pipeline.statistics.statistics import Statistics
from coat.pipeline.statistics.sums import Sums

# Standard deviations that integers by dimension span: what lies further out is cut. For int4 it is what gives the
# smallest error, between that of a Gaussian (2.5) and that of Whisper's states (docs/log.md).
WIDEST = {"int8": 6.0, "int4": 2.8}


def fit(
    found: Statistics,
    sample: Sample,
    *,
    rate_hz: float | None = None,
    pca: int | None = None,
    whiten: bool = False,
    topk: int | None = None,
    dtype: Dtype = "float16",
    scaling: Scaling = "frame",
) -> Reduction:
    """A reduction of a target set. InputError where it does not go with the targets' kind."""
    basis = offset_C = scale_C = None
    widest = WIDEST.get(dtype, 0.0)
    if pca is not None:
        if found.pca is None or not 0 < pca <= found.spec.dim:
            raise InputError(f"--pca {found.spec.expert}={pca}: expected 1 to {found.spec.dim} components")
        components = components_of(found, sample)
        size_C = np.sqrt(components.variance_C[:pca]) if whiten else np.ones(pca)
        size_C = np.where(size_C > 0, size_C, 1.0)  # a component that holds nothing stays at 0
        basis = PrincipalBasis(
            ConstantArray.of(components.mean_D), ConstantArray.of(components.axes_CD[:pca]), ConstantArray.of(size_C)
        )
        std_C = np.sqrt(components.variance_C[:pca]) / size_C
        offset_C, reach_C = np.zeros(pca), widest * std_C
    else:
        s = found.sums
        offset_C = s.mean_D
        farthest_C = np.maximum(s.high_D - s.mean_D, s.mean_D - s.low_D)
        reach_C = np.minimum(farthest_C, widest * s.std_D)
    if dtype in LARGEST_STEP and scaling == "dimension":
        scale_C = ConstantArray.of(reach_C / LARGEST_STEP[dtype])
    return Reduction.of(
        found.spec,
        rate_hz=rate_hz,
        basis=basis,
        topk=topk,
        dtype=dtype,
        scaling=scaling,
        offset_C=ConstantArray.of(offset_C) if scale_C else None,
        scale_C=scale_C,
    )


def components_of(found: Statistics, sample: Sample) -> PCA:
    """Of all frames but those of the sample, whose part is taken out of the sums (Chan's rule, backwards)."""
    whole = found.sums
    assert found.pca is not None
    if not sample.apart:
        return found.pca
    frames_ND = np.concatenate(sample.utterances)
    part = Sums.of(frames_ND, found.spec.kind, covariance=True)
    left = whole.whole - part.whole
    mean_D = whole.centre_D + (whole.centre_D - part.centre_D) * (part.whole / left)
    move_D = part.centre_D - mean_D
    assert whole.scatter_DD is not None
    assert part.scatter_DD is not None
    scatter_DD = whole.scatter_DD - part.scatter_DD - np.outer(move_D, move_D * (left * part.whole / whole.whole))
    return PCA.of(mean_D, scatter_DD / left)
