"""How far apart two targets are, and where. N frames, D dim."""

import numpy as np
from numpy.typing import NDArray

from coat.extractors.windows import Frames
from coat.manifests.targets.spec import TargetSpec

Difference = NDArray[np.float64]  # [N]


def difference(before: Frames, after: Frames) -> Difference:
    """How far apart two targets are, frame by frame."""
    return np.linalg.norm((after - before).astype(np.float64), axis=1)


def peak_time(difference_N: Difference, spec: TargetSpec) -> float:
    """Seconds at which two clips differ most: centroid of the difference, where it exceeds half its peak."""
    peak = int(difference_N.argmax())
    low = high = peak
    while low > 0 and difference_N[low - 1] > difference_N[peak] / 2:
        low -= 1
    while high + 1 < len(difference_N) and difference_N[high + 1] > difference_N[peak] / 2:
        high += 1
    return centroid(difference_N, spec, low, high + 1)


def stretch_time(difference_N: Difference, spec: TargetSpec, seconds: float) -> float:
    """The middle of the stretch of so many seconds in which two clips differ most."""
    rest_N = np.maximum(difference_N - np.median(difference_N), 0.0)
    width = max(3, round(seconds * spec.rate_hz) + 2)
    first = int(np.convolve(rest_N, np.ones(width), mode="valid").argmax())
    return centroid(rest_N, spec, first, first + width)


def segment_times(difference_N: Difference, spec: TargetSpec) -> tuple[float, float]:
    """Where a difference begins and ends: the stretch of frames that stands out most from the rest (least squares)."""
    n = len(difference_N)
    sums = np.concatenate([[0.0], np.cumsum(difference_N - difference_N.mean())])
    inside = sums[None, :] - sums[:, None]  # of frames first to last, that is [first, last)
    frames = np.arange(n + 1)[None, :] - np.arange(n + 1)[:, None]
    within = (frames > 0) & (frames < n) & (inside > 0)
    gain = np.where(within, inside**2 / np.where(within, frames * (n - frames) / n, 1), 0.0)
    first, last = np.unravel_index(gain.argmax(), gain.shape)
    edges = spec.start_s + (np.array([first, last]) - 0.5) / spec.rate_hz
    return float(edges[0]), float(edges[1])


def first_time(difference_N: Difference, spec: TargetSpec) -> float:
    """Of the first frame that differs by a tenth of the most."""
    return float(spec.times(len(difference_N))[np.flatnonzero(difference_N > 0.1 * difference_N.max())[0]])


def centroid(difference_N: Difference, spec: TargetSpec, low: int, high: int) -> float:
    weights = difference_N[low:high]
    return float((spec.times(high)[low:] * weights).sum() / max(weights.sum(), 1e-300))


def channel_error(a: Frames, b: Frames) -> float:
    """Largest difference, each channel relative to its own largest value; infinite where the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    return float((np.abs(a - b).max(axis=0) / np.maximum(np.abs(a).max(axis=0), 1e-12)).max())


def relative_error(a: Frames, b: Frames) -> float:
    """Largest difference, relative to the largest value of all; infinite where the shapes differ."""
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)) if a.shape == b.shape else float("inf")
