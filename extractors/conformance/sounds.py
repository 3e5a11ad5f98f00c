"""Test sounds with an event at a known time. T samples.

Each event comes as two clips, without and with it: an expert's frames differ where it is.
"""

import numpy as np
from numpy.typing import NDArray

from coat.extractors.windows import Waveform

GLIDE_CYCLES = 8  # that a glide adds to its tone: a whole number, so that what follows is as it was without


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
