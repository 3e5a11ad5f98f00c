"""Reductions fitted to a target set, and how true they are to it, measured on utterances they were not fitted to.

    sample = held_out(targets)
    how = fit(statistics(targets), sample, pca=160, dtype="int8")
    print(measure(sample, how, targets.spec))

N frames, M frames at the reduced rate, D dim, C components.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.errors import InputError
from coat.manifests.targets.reduction import LARGEST, Basis, Dtype, Numbers, Reduction, Scaling, decode, encode
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.statistics.pca import PCA
from coat.pipeline.statistics.statistics import Statistics
from coat.pipeline.statistics.sums import Sums
from coat.pipeline.store.rows import OK
from coat.pipeline.store.target_set import TargetSet

SAMPLE_VALUES = 2**23  # of the held-out sample: 64 MB in float64
SAMPLE_SHARE = 5  # of a small set at most every fifth utterance
# Standard deviations that integers by dimension span: what lies further out is cut. For int4 it is what gives the
# smallest error, between that of a Gaussian (2.5) and that of Whisper's states (docs/log.md).
WIDEST = {"int8": 6.0, "int4": 2.8}
SURE = 10  # frames to fit per dimension; of fewer, the sample is not held out
HOUR_S = 3600.0


@dataclass(frozen=True)
class Sample:
    """Utterances `[N, D]` that a reduction is measured on. `apart`: it is not fitted to them."""

    utterances: tuple[NDArray[Any], ...]
    apart: bool


@dataclass(frozen=True)
class Agreement:
    """Of frames and what is left of them."""

    cosine: float  # mean over frames
    cosine_p5: float  # that 95 % of the frames reach
    relative_error: float  # root of (sum of squared differences / sum of squares)
    explained_variance: float  # 1 - sum of squared differences / sum of squared deviations from the mean


@dataclass(frozen=True)
class Fidelity:
    """`original`: decoded and brought back to the extracted rate, against what was extracted. `at_rate`: against
    the same frames at the reduced rate, that is, without what the rate itself leaves out."""

    frames: int
    apart: bool
    original: Agreement
    at_rate: Agreement
    bytes_per_hour_before: float  # as extracted
    bytes_per_hour: float
    std_ratio_D: tuple[float, ...]  # of a dimension's standard deviation, after / before; 1 where it does not vary

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "std_ratio_D"}


def held_out(targets: TargetSet, most_values: int = SAMPLE_VALUES) -> Sample:
    """Utterances by the order of their digests, which is random and always the same. InputError: no targets."""
    rows, dim = targets.rows, targets.spec.dim
    ok = rows.order[rows.status[rows.order] == OK]
    if not len(ok):
        raise InputError(f"{targets.url}: no targets to measure a reduction on; run `coat extract`")
    taken, values = [], 0
    for position in ok[: max(1, len(ok) // SAMPLE_SHARE)]:
        taken.append(targets.read_row(rows.at(int(position))).frames)
        values += taken[-1].size
        if values >= most_values:
            break
    left = sum(int(done["frames"]) for done in targets.done.values()) - values // dim
    return Sample(tuple(taken), apart=left >= SURE * dim)


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
        basis = Basis(Numbers.of(components.mean_D), Numbers.of(components.axes_CD[:pca]), Numbers.of(size_C))
        std_C = np.sqrt(components.variance_C[:pca]) / size_C
        offset_C, reach_C = np.zeros(pca), widest * std_C
    else:
        s = found.sums
        offset_C = s.mean_D
        farthest_C = np.maximum(s.high_D - s.mean_D, s.mean_D - s.low_D)
        reach_C = np.minimum(farthest_C, widest * s.std_D)
    if dtype in LARGEST and scaling == "dimension":
        scale_C = Numbers.of(reach_C / LARGEST[dtype])
    return Reduction.of(
        found.spec,
        rate_hz=rate_hz,
        basis=basis,
        topk=topk,
        dtype=dtype,
        scaling=scaling,
        offset_C=Numbers.of(offset_C) if scale_C else None,
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


def measure(sample: Sample, how: Reduction, spec: TargetSpec) -> Fidelity:
    """Encode and decode the sample, and compare."""
    lowered = how if how.rate_hz is None else Reduction.of(spec, rate_hz=how.rate_hz, dtype="float32")
    truths, given, at_rate_truths, at_rate = [], [], [], []
    for frames_ND in sample.utterances:
        decoded_MD = decode(encode(frames_ND, how), how)
        at_rate.append(decoded_MD)
        given.append(decoded_MD if how.rate_hz is None else how.rate.raise_(decoded_MD, len(frames_ND)))
        truths.append(frames_ND)
        at_rate_truths.append(frames_ND if how.rate_hz is None else decode(encode(frames_ND, lowered), lowered))
    return Fidelity(
        frames=sum(map(len, truths)),
        apart=sample.apart,
        original=agreement(truths, given),
        at_rate=agreement(at_rate_truths, at_rate),
        bytes_per_hour_before=spec.bytes_per_second() * HOUR_S,
        bytes_per_hour=how.bytes_per_second * HOUR_S,
        std_ratio_D=std_ratio(truths, at_rate),
    )


def std_ratio(before: Sequence[NDArray[Any]], after: Sequence[NDArray[Any]]) -> tuple[float, ...]:
    """Means over time and components left out make targets vary less; it is by their own deviation that a trainer
    standardises them.
    """
    before_D, after_D = (np.concatenate(x).astype(np.float64).std(axis=0) for x in (before, after))
    varies_D = (before_D > 0) & (after_D > 0)
    return tuple(np.divide(after_D, before_D, out=np.ones_like(before_D), where=varies_D).tolist())


def agreement(truths: Sequence[NDArray[Any]], given: Sequence[NDArray[Any]]) -> Agreement:
    """Over all frames of all utterances."""
    x_ND = np.concatenate(truths).astype(np.float64)
    y_ND = np.concatenate(given).astype(np.float64)
    products_N = np.einsum("nd,nd->n", x_ND, y_ND)
    norms_N = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND) * np.einsum("nd,nd->n", y_ND, y_ND))
    equal_N = (x_ND == y_ND).all(axis=1)  # two frames of zeros have no angle, and agree
    cosines_N = np.where(equal_N, 1.0, products_N / np.where(norms_N > 0, norms_N, 1.0))
    squares, deviations = float((x_ND**2).sum()), float(((x_ND - x_ND.mean(axis=0)) ** 2).sum())
    y_ND -= x_ND
    wrong = float((y_ND**2).sum())
    return Agreement(
        cosine=float(cosines_N.mean()),
        cosine_p5=float(np.quantile(cosines_N, 0.05)),
        relative_error=float(np.sqrt(wrong / squares)) if squares else float(wrong > 0),
        explained_variance=1.0 - wrong / deviations if deviations else 1.0 - (wrong > 0),
    )
