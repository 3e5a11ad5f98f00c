"""Sounds with an event at a known time, and where frames show it.

T samples, N frames, D dim. Each event comes as two clips, without and with it: an expert's frames differ where it is.
"""

import numpy as np
from numpy.typing import NDArray

from coat.extractors.windows import Frames, Waveform
from coat.manifests.targets.spec import TargetSpec

GLIDE_CYCLES = 8  # that a glide adds to its tone: a whole number, so that what follows is as it was without
Difference = NDArray[np.float64]  # [N]


def noise(seconds: float, rate: int, seed: int = 0, level: float = 0.1) -> Waveform:
    """White noise; read-only, since a worker may lend the same samples to several experts."""
    samples_T = np.random.default_rng(seed).normal(scale=level, size=round(seconds * rate)).astype(np.float32)
    samples_T.flags.writeable = False
    return samples_T


def harmonics(phase_T: NDArray[np.float64]) -> Waveform:
    """A voice-like sum of seven harmonics of a phase in cycles, RMS about 0.087."""
    return (0.1 * np.sum([np.sin(2 * np.pi * k * phase_T) / k for k in range(1, 8)], axis=0)).astype(np.float32)


def tone(seconds: float, rate: int, hz: float = 220.0) -> Waveform:
    return harmonics(np.arange(round(seconds * rate)) / rate * hz)


def burst(
    quiet_T: Waveform, rate: int, centre: int, seconds: float, level: float, draw: int = 0, tonal: bool = False
) -> Waveform:
    """The clip with noise added around sample `centre`, or a tone of the same RMS; another one for each draw."""
    half = round(seconds * rate / 2)
    struck_T = quiet_T.copy()
    added_T = tone(seconds, rate, 220.0 * 2 ** (draw / 12)) if tonal else noise(2 * half / rate, rate, 1 + draw)
    struck_T[centre - half : centre + half] += np.resize(at_level(added_T, level), 2 * half)
    return struck_T


def at_level(samples_T: Waveform, level: float) -> Waveform:
    """With an RMS of `level`."""
    return samples_T * np.float32(level / np.sqrt(np.mean(samples_T**2)))


def segment(quiet_T: Waveform, rate: int, start: int, stop: int, level: float) -> tuple[Waveform, Waveform]:
    """Between two samples noise, or a tone of the same RMS: all else is shared, and no level tells them apart."""
    seconds = (stop - start) / rate
    clips = []
    for x_T in (noise(seconds, rate, seed=2), tone(seconds, rate)):
        clip_T = quiet_T.copy()
        clip_T[start:stop] += np.resize(at_level(x_T, level), stop - start)
        clips.append(clip_T)
    return clips[0], clips[1]


def glide(samples: int, rate: int, centre: int, seconds: float, hz: float = 220.0) -> tuple[Waveform, Waveform]:
    """A steady tone, and one that glides up and back within `seconds` around sample `centre`."""
    t = np.arange(samples) / rate
    inside = np.clip((t - centre / rate) / seconds + 0.5, 0.0, 1.0)
    extra = GLIDE_CYCLES * (inside - np.sin(2 * np.pi * inside) / (2 * np.pi))  # integral of a Hann-shaped rise in Hz
    return harmonics(t * hz), harmonics(t * hz + extra)


def logit(probabilities: Frames) -> Frames:
    """A scale on which a probability near 0 can be seen to move."""
    p = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


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
