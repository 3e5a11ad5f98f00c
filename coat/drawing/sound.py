"""The sound itself, as panels: its waveform, and the log-mel of what experts hear of it.

T samples, N frames, R mel bands, F bins of a spectrum, W samples of a window.
"""

import numpy as np
from numpy.typing import NDArray

from coat.drawing.panels import Floats, Panel, Track, ticks_at
from coat.drawing.text import rounded_number

WAVE_COLUMNS = 2000  # of the waveform, at most
SOUND_BANDS = 128  # of the log-mel
WINDOW_S, LONGEST_HOP_S, SHORTEST_HOP_S = 0.025, 0.010, 0.001
DEEPEST_DB = -80.0  # of the log-mel, below its loudest cell
MEL_TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000, 16000)


def waveform_panel(samples_T: Floats, rate: int, start_s: float) -> Panel:
    columns = min(len(samples_T), WAVE_COLUMNS)
    starts = np.arange(columns) * len(samples_T) // columns
    wave_N2 = np.stack([np.minimum.reduceat(samples_T, starts), np.maximum.reduceat(samples_T, starts)], axis=1)
    peak_N = np.abs(wave_N2).max(axis=1)
    readouts = [f"peak {rounded_number(decibels(x))} dBFS" if x else "silent" for x in peak_N.tolist()]
    most = float(peak_N.max()) or 1.0
    track = Track(
        name="amplitude",
        style="wave",
        values=wave_N2,
        low=-1.05 * most,
        high=1.05 * most,
        readouts=readouts,
        height=76,
        ticks=ticks_at(-1.05 * most, 1.05 * most, [-most, 0.0, most]),
    )
    columns_hz = columns * rate / len(samples_T)
    description = f"{rate} Hz, channels mixed; full scale is 1"
    return Panel(
        title="waveform",
        description=description,
        first_s=start_s + 0.5 / columns_hz,
        rate_hz=columns_hz,
        tracks=(track,),
    )


def log_mel_panel(samples_T: Floats, rate: int, start_s: float) -> Panel:
    hop = round(rate * min(LONGEST_HOP_S, max(SHORTEST_HOP_S, len(samples_T) / rate / 1000)))
    level_NR = log_mel_db(samples_T, rate, hop)
    centres = band_centres(rate)
    loudest = level_NR.argmax(axis=1)
    readouts = [
        f"{centres[band]:.0f} Hz, {rounded_number(level_NR[i, band])} dB"
        if level_NR[i, band] > DEEPEST_DB
        else "silent"
        for i, band in enumerate(loudest.tolist())
    ]
    shown = [hz for hz in MEL_TICKS_HZ if centres[0] < hz < centres[-1]]
    at = (np.interp(shown, centres, np.arange(SOUND_BANDS)) + 0.5) / SOUND_BANDS
    track = Track(
        name="frequency",
        style="image",
        values=level_NR,
        low=DEEPEST_DB,
        high=0.0,
        readouts=readouts,
        height=128,
        unit="dB",
        colour_map="magma",
        ticks=tuple((float(y), f"{hz:g} Hz") for y, hz in zip(at, shown, strict=True)),
    )
    description = f"as experts hear it, at {rate} Hz; dB below the loudest cell"
    value_meaning = "the value is of the strongest band"
    return Panel(
        title="log-mel",
        description=description,
        value_meaning=value_meaning,
        first_s=start_s,
        rate_hz=rate / hop,
        tracks=(track,),
    )


def log_mel_db(samples_T: Floats, rate: int, hop: int) -> Floats:
    """`[N, SOUND_BANDS]` in dB below the loudest cell; frame i is centred at sample `hop * i`."""
    window = round(WINDOW_S * rate)
    bins = 2 ** int(np.ceil(np.log2(2 * window)))  # padded, so that the narrowest band holds a bin
    frames = 1 + -(-len(samples_T) // hop)
    padded_T = np.pad(samples_T, (window // 2, window + 2 * hop))
    framed_NW = np.lib.stride_tricks.sliding_window_view(padded_T, window)[::hop][:frames]
    hann_W = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(window) + 0.5) / window)).astype(np.float32)
    power_NF = np.abs(np.fft.rfft(framed_NW * hann_W, bins)) ** 2
    power_NR = power_NF @ mel_filters(rate, bins).astype(power_NF.dtype)
    loudest = float(power_NR.max())
    if not loudest:
        return np.full(power_NR.shape, DEEPEST_DB, np.float32)
    return np.maximum(10 * np.log10(np.maximum(power_NR / loudest, 1e-30)), DEEPEST_DB).astype(np.float32)


def mel_filters(rate: int, bins: int) -> NDArray[np.float64]:
    """`[bins // 2 + 1, SOUND_BANDS]`, even on the mel axis up to half the rate; each sums to 1."""
    edges = mel_to_hz(np.linspace(0.0, hz_to_mel(rate / 2), SOUND_BANDS + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hz_F1 = np.linspace(0.0, rate / 2, bins // 2 + 1)[:, None]
    triangles = np.maximum(0.0, np.minimum((hz_F1 - low) / (centre - low), (high - hz_F1) / (high - centre)))
    return triangles / np.maximum(triangles.sum(axis=0), 1e-9)


def band_centres(rate: int) -> NDArray[np.float64]:
    return mel_to_hz(np.linspace(0.0, hz_to_mel(rate / 2), SOUND_BANDS + 2))[1:-1]


def hz_to_mel(hz: float) -> float:
    return 1127.0 * float(np.log1p(hz / 700.0))


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return 700.0 * np.expm1(mel / 1127.0)


def decibels(amplitude: float) -> float:
    return 20 * float(np.log10(amplitude))
