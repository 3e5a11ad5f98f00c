"""Sounds of known truth, by synthesis: tones, vowels, noises, clicks, chirps and bells.

T samples at SAMPLE_RATE, float64. Every function returns the sound alone, without background; its
loudness is arbitrary (`synthesis` sets the level).
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz
HIGHEST_HZ = 0.45 * SAMPLE_RATE  # partials above it are left out, against aliasing
EDGE_S = 0.008  # raised-cosine rise and fall of a sound

Signal = NDArray[np.float64]  # [T]
Breakpoints = Sequence[Sequence[float]]  # [[time_s, value], ...], times rising

# F1, F2, F3 in Hz of an adult's sung vowels, after Peterson & Barney (1952), rounded.
FORMANTS_HZ = {
    "a": (730.0, 1150.0, 2440.0),
    "e": (500.0, 1850.0, 2500.0),
    "i": (270.0, 2290.0, 3010.0),
    "o": (480.0, 820.0, 2600.0),
    "u": (310.0, 650.0, 2240.0),
}
BANDWIDTHS_HZ = (70.0, 90.0, 130.0)
# Partials of a struck bell as ratios of its prime: hum, prime, tierce, quint, nominal and two above.
BELL_RATIOS = (0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66)
BELL_DECAY = 2.3  # nepers from strike to off: 20 dB


def times(samples: int) -> Signal:
    return np.arange(samples) / SAMPLE_RATE


def f0_at(breakpoints: Breakpoints, times_s: NDArray[np.float64]) -> Signal:
    """f0 in Hz at some times: log2 of it is linear between breakpoints and constant outside them."""
    at_s, hz = np.array(breakpoints, dtype=np.float64).T
    return 2.0 ** np.interp(times_s, at_s, np.log2(hz))


def edges(samples: int) -> Signal:
    """A gain of 1 with raised-cosine ends, so that a sound starts and stops without a click."""
    rise = min(round(EDGE_S * SAMPLE_RATE), samples // 2)
    gain = np.ones(samples)
    gain[:rise] = 0.5 - 0.5 * np.cos(np.pi * np.arange(rise) / max(rise, 1))
    gain[samples - rise :] = gain[:rise][::-1]
    return gain


def harmonics(f0_T: Signal, gain: Callable[[int, Signal], Signal | float], count: int = 64) -> Signal:
    """Sum of sines at k * f0, each with `gain(k, its frequency in Hz)`."""
    turn_T: NDArray[np.complex128] = np.exp(2j * np.pi * np.cumsum(f0_T) / SAMPLE_RATE)
    partial_T = np.ones(len(turn_T), np.complex128)
    sound_T = np.zeros(len(f0_T))
    for k in range(1, min(count, int(HIGHEST_HZ / f0_T.min())) + 1):
        partial_T *= turn_T
        sound_T += np.where(k * f0_T < HIGHEST_HZ, gain(k, k * f0_T), 0.0) * np.imag(partial_T)
    return sound_T


def tone(f0_T: Signal, tilt: float, count: int) -> Signal:
    """A tone whose k-th harmonic has the amplitude k ** -tilt."""
    return harmonics(f0_T, lambda k, _: k**-tilt, count) * edges(len(f0_T))


def vowel(f0_T: Signal, name: str, scale: float = 1.0) -> Signal:
    """A sung vowel: a glottal source of -6 dB an octave through three formants, times `scale` in Hz."""

    def gain(k: int, hz_T: Signal) -> Signal:
        response_T = np.full(len(hz_T), 1.0 / k)
        for formant, bandwidth in zip(FORMANTS_HZ[name], BANDWIDTHS_HZ, strict=True):
            centre = formant * scale
            response_T *= centre**2 / np.sqrt((centre**2 - hz_T**2) ** 2 + (bandwidth * hz_T) ** 2)
        return response_T

    return harmonics(f0_T, gain) * edges(len(f0_T))


def noise(rng: np.random.Generator, samples: int, tilt: float = 0.0) -> Signal:
    """Noise of unit RMS whose amplitude falls as frequency ** -tilt (0 white, 0.5 pink)."""
    length = 1 << samples.bit_length()  # a power of two: other lengths can take the FFT ten times as long
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum[0] = 0.0
    spectrum[1:] *= np.arange(1, len(spectrum)) ** -tilt
    sound_T = np.fft.irfft(spectrum, length)[:samples]
    return sound_T / np.sqrt(np.mean(sound_T**2))


def burst(rng: np.random.Generator, samples: int) -> Signal:
    """A noise burst."""
    return noise(rng, samples, rng.uniform(0.0, 0.4)) * edges(samples)


def beep(rng: np.random.Generator, samples: int) -> Signal:
    """A steady pure tone."""
    return tone(np.full(samples, rng.uniform(500.0, 1500.0)), 1.0, 1)


def click(rng: np.random.Generator) -> Signal:
    """One click: 4 ms of quickly dying noise."""
    samples = round(0.004 * SAMPLE_RATE)
    return rng.choice([-1.0, 1.0], samples) * np.exp(-np.arange(samples) / (0.001 * SAMPLE_RATE))


def clicks(rng: np.random.Generator, samples: int) -> Signal:
    """A regular train of clicks, 10 to 18 a second, the last one ending where the train ends."""
    one = click(rng)
    count = max(2, round(samples / SAMPLE_RATE * rng.uniform(10.0, 18.0)))
    sound_T = np.zeros(samples)
    for start in np.linspace(0, samples - len(one), count).astype(int):
        sound_T[start : start + len(one)] += one
    return sound_T


def chirp(rng: np.random.Generator, samples: int) -> Signal:
    """A pure tone that sweeps one and a half to two and a half octaves, up or down."""
    low_hz, high_hz = 400.0 * 2.0 ** rng.uniform(0.0, 0.5), 400.0 * 2.0 ** rng.uniform(2.0, 2.5)
    sweep_T = np.geomspace(low_hz, high_hz, samples)
    return tone(sweep_T if rng.random() < 0.5 else sweep_T[::-1], 1.0, 1)


def bell(rng: np.random.Generator, samples: int) -> Signal:
    """A struck bell: inharmonic partials that die away, 20 dB down where it is stopped."""
    prime_hz = rng.uniform(500.0, 1100.0)
    sound_T = np.zeros(samples)
    for ratio in BELL_RATIOS:
        phase = rng.uniform(0.0, 2.0 * np.pi)
        sound_T += rng.uniform(0.4, 1.0) * np.sin(2.0 * np.pi * prime_hz * ratio * times(samples) + phase)
    return sound_T * np.exp(-BELL_DECAY * np.arange(samples) / samples) * edges(samples)
