"""What is drawn of one utterance, as data: panels of tracks, all of them on the time of the utterance.

A track is a strip: a curve, a class, an image. Frame i of a panel is centred at `first_s + i / rate_hz` and is
`1 / rate_hz` wide; it is drawn so wide, and what is said of it (`reads`) is said of all that width.

T samples, N frames, D dim, R rows of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coat.manifests.spec import TargetSpec

Floats = NDArray[np.float32]
Style = Literal["line", "area", "band", "image", "wave"]
Read = float | str | None  # what is said of a frame; None: nothing

CURVES = 32  # dimensions that are drawn as curves, one below the other; more of them are an image
TALL_CURVES = 6  # of these there is room for tall ones
CLASSES = 10  # of many, those with the highest peaks
IMAGE_ROWS = 128  # at most: more dimensions are averaged with their neighbours
ORDERED_BY = 512  # frames that the order of an image's dimensions is found from
VOICED = 0.5  # voicing from which f0 is drawn
WAVE_COLUMNS = 2000  # of the waveform, at most
SOUND_BANDS = 96  # of the sound's own log-mel
WINDOW_S, LONGEST_HOP_S, SHORTEST_HOP_S = 0.025, 0.010, 0.001
DEEPEST_DB = -80.0  # of the log-mel, below its loudest cell
UNITS = {"_hz": "Hz", "_db": "dB", "_s": "s"}  # that a channel's name ends in
F0_TICKS_HZ = (20, 50, 100, 200, 400, 800, 1600, 3200)
MEL_TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True, kw_only=True)
class Track:
    name: str
    style: Style
    # [N]; image: [N, R], the lowest row first; wave: [N, 2], lowest and highest. A curve is broken where it is NaN.
    values: Floats
    low: float  # at the lower edge, or of the first colour
    high: float
    reads: Sequence[Read]  # [N]
    height: int  # pixels of the page
    unit: str = ""
    log: bool = False
    colours: str = "Blues"  # colour map of a band or an image
    ticks: tuple[tuple[float, str], ...] = ()  # height in 0..1, and what stands there


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    what: str = ""  # is shown: a line or two
    first_s: float = 0.0
    rate_hz: float = 1.0
    tracks: tuple[Track, ...] = ()
    problem: str = ""  # why there is nothing, or what is wrong with it
    spec: TargetSpec | None = None

    @property
    def frames(self) -> int:
        return len(self.tracks[0].values) if self.tracks else 0

    def edges(self) -> NDArray[np.float64]:
        """Seconds of the borders between frames, `[N + 1]`."""
        return self.first_s + (np.arange(self.frames + 1) - 0.5) / self.rate_hz


def waveform(samples_T: Floats, rate: int, start_s: float) -> Panel:
    columns = min(len(samples_T), WAVE_COLUMNS)
    starts = np.arange(columns) * len(samples_T) // columns
    wave_N2 = np.stack([np.minimum.reduceat(samples_T, starts), np.maximum.reduceat(samples_T, starts)], axis=1)
    peak_N = np.abs(wave_N2).max(axis=1)
    reads = [f"peak {rounded(decibels(x))} dBFS" if x else "silent" for x in peak_N.tolist()]
    most = float(peak_N.max()) or 1.0
    track = Track(
        name="amplitude",
        style="wave",
        values=wave_N2,
        low=-1.05 * most,
        high=1.05 * most,
        reads=reads,
        height=76,
        ticks=ticks_at(-1.05 * most, 1.05 * most, [-most, 0.0, most]),
    )
    columns_hz = columns * rate / len(samples_T)
    what = f"{rate} Hz, channels mixed; full scale is 1"
    return Panel(title="waveform", what=what, first_s=start_s + 0.5 / columns_hz, rate_hz=columns_hz, tracks=(track,))


def log_mel_panel(samples_T: Floats, rate: int, start_s: float) -> Panel:
    hop = round(rate * min(LONGEST_HOP_S, max(SHORTEST_HOP_S, len(samples_T) / rate / 1000)))
    level_NR = log_mel(samples_T, rate, hop)
    centres = band_centres(rate)
    loudest = level_NR.argmax(axis=1)
    reads = [
        f"{rounded(centres[band])} Hz, {rounded(level_NR[i, band])} dB" if level_NR[i, band] > DEEPEST_DB else "silent"
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
        reads=reads,
        height=132,
        unit="dB",
        colours="magma",
        ticks=tuple((float(y), f"{hz:g} Hz") for y, hz in zip(at, shown, strict=True)),
    )
    what = f"as experts hear it, at {rate} Hz; dB below the loudest cell; the value is of the strongest band"
    return Panel(title="log-mel", what=what, first_s=start_s, rate_hz=rate / hop, tracks=(track,))


def log_mel(samples_T: Floats, rate: int, hop: int) -> Floats:
    """`[N, SOUND_BANDS]` in dB below the loudest cell; frame i is centred at sample `hop * i`."""
    window = round(WINDOW_S * rate)
    bins = 2 ** int(np.ceil(np.log2(2 * window)))  # padded, so that the narrowest band holds a bin
    frames = -(-len(samples_T) // hop)
    padded_T = np.pad(samples_T, (window // 2, window + hop))
    framed_NW = np.lib.stride_tricks.sliding_window_view(padded_T, window)[::hop][:frames]
    hann_W = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(window) + 0.5) / window)).astype(np.float32)
    power_NF = np.abs(np.fft.rfft(framed_NW * hann_W, bins)) ** 2
    power_NR = power_NF @ mel_triangles(rate, bins).astype(power_NF.dtype)
    loudest = float(power_NR.max())
    if not loudest:
        return np.full(power_NR.shape, DEEPEST_DB, np.float32)
    lowest = 10 ** (DEEPEST_DB / 10)
    return (10 * np.log10(np.maximum(power_NR / loudest, lowest))).astype(np.float32)


def mel_triangles(rate: int, bins: int) -> NDArray[np.float64]:
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


def target_tracks(frames_ND: Floats, spec: TargetSpec) -> tuple[tuple[Track, ...], str]:
    """The tracks of a target, and a line that says how they are to be read."""
    names = list(spec.channels) or [f"dim {i}" for i in range(spec.dim)]
    if spec.kind == "pitch":
        return pitch_tracks(frames_ND, names), f"f0 is broken where voicing is below {VOICED}"
    if spec.kind in ("probabilities", "distribution"):
        return class_tracks(frames_ND, names)
    if spec.dim <= CURVES:
        height = 54 if spec.dim <= TALL_CURVES else 24
        return tuple(curve(n, x, height) for n, x in zip(names, frames_ND.T, strict=True)), "each on its own scale"
    if spec.kind == "scalars" and spec.family == "reconstruction":
        return (spectrum(frames_ND, names),), "one scale for all; the value is of the strongest channel"
    return standardised(frames_ND, names, spec)


def pitch_tracks(frames_ND: Floats, names: Sequence[str]) -> tuple[Track, ...]:
    """f0 on a log axis, then voicing, then what else there is."""
    hz_N = np.where(frames_ND[:, 1] >= VOICED, np.exp2(frames_ND[:, 0]), np.nan).astype(np.float32)
    voiced = hz_N[np.isfinite(hz_N)]
    low, high = (float(voiced.min()) / 1.2, float(voiced.max()) * 1.2) if len(voiced) else (50.0, 500.0)
    if high < 2 * low:  # less than an octave would make much of a little
        low, high = (low * high) ** 0.5 / 2**0.5, (low * high) ** 0.5 * 2**0.5
    inside = [hz for hz in F0_TICKS_HZ if low <= hz <= high]
    f0 = Track(
        name="f0",
        style="line",
        values=hz_N,
        low=low,
        high=high,
        reads=[None if np.isnan(x) else significant(x) for x in hz_N.tolist()],
        height=110,
        unit="Hz",
        log=True,
        ticks=tuple((float(np.log(hz / low) / np.log(high / low)), f"{hz:g}") for hz in inside),
    )
    rest = [curve(n, x, 54) for n, x in zip(names[2:], frames_ND.T[2:], strict=True)]
    return f0, probability(names[1], frames_ND[:, 1]), *rest


def class_tracks(frames_ND: Floats, names: Sequence[str]) -> tuple[tuple[Track, ...], str]:
    if len(names) <= TALL_CURVES:
        return tuple(probability(n, x) for n, x in zip(names, frames_ND.T, strict=True)), "probability, 0 to 1"
    peaks_D, means_D = frames_ND.max(axis=0), frames_ND.mean(axis=0)
    top = np.lexsort((-means_D, -peaks_D))[:CLASSES].tolist()
    bands = [
        Track(
            name=names[d],
            style="band",
            values=frames_ND[:, d],
            low=0.0,
            high=1.0,
            reads=significants(frames_ND[:, d]),
            height=20,
        )
        for d in top
    ]
    return tuple(bands), f"{len(bands)} of {len(names)} classes: the highest peaks in what is shown; probability 0 to 1"


def probability(name: str, values_N: Floats) -> Track:
    return Track(
        name=name,
        style="area",
        values=values_N,
        low=0.0,
        high=1.0,
        reads=significants(values_N),
        height=54,
        ticks=((0.0, "0"), (1.0, "1")),
    )


def curve(name: str, values_N: Floats, height: int) -> Track:
    least, most = float(values_N.min()), float(values_N.max())
    margin = 0.08 * (most - least) or max(1e-3, 0.1 * abs(most))
    low, high = least - margin, most + margin
    return Track(
        name=name,
        style="line",
        values=values_N,
        low=low,
        high=high,
        reads=significants(values_N),
        height=height,
        unit=next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), ""),
        ticks=ticks_at(low, high, [least, most] if most > least else [least]),
    )


def spectrum(frames_ND: Floats, names: Sequence[str]) -> Track:
    """Channels of one kind, such as the bands of a spectrogram."""
    strongest = frames_ND.argmax(axis=1).tolist()
    return Track(
        name="channel",
        style="image",
        values=pooled(frames_ND),
        low=float(frames_ND.min()),
        high=float(max(frames_ND.max(), frames_ND.min() + 1e-6)),
        reads=[f"{names[d]}: {rounded(frames_ND[i, d])}" for i, d in enumerate(strongest)],
        height=132,
        colours="magma",
        ticks=((0.0, names[0]), (1.0, names[-1])),
    )


def standardised(frames_ND: Floats, names: Sequence[str], spec: TargetSpec) -> tuple[tuple[Track, ...], str]:
    """Hidden states: each dimension less its mean and over its deviation, and those side by side that move together.

    As they are, a few dimensions of great size would hide all others, and neighbours have nothing in common.
    """
    wide_ND = frames_ND.astype(np.float64)
    deviation_D = wide_ND.std(axis=0)
    z_ND = ((wide_ND - wide_ND.mean(axis=0)) / np.where(deviation_D > 0, deviation_D, 1.0)).astype(np.float32)
    image_NR = pooled(z_ND[:, order_together(z_ND)])
    most = max(float(np.percentile(np.abs(image_NR), 99)), 1e-3)
    norms_N, oddest = np.linalg.norm(wide_ND, axis=1), np.abs(z_ND).argmax(axis=1)
    reads = [f"norm {rounded(norms_N[i])}; {names[d]}: {z_ND[i, d]:+.1f} σ" for i, d in enumerate(oddest.tolist())]
    track = Track(
        name=f"{spec.dim} dimensions",
        style="image",
        values=image_NR,
        low=-most,
        high=most,
        reads=reads,
        height=150,
        unit="σ",
        colours="RdBu_r",
    )
    each = -(-spec.dim // image_NR.shape[1])
    return (track,), (
        "each dimension standardised over what is shown, ordered so that those that move together lie together"
        + (f", up to {each} averaged in a row" if each > 1 else "")
        + "; the value is the frame's norm and its most unusual dimension"
    )


def order_together(z_ND: Floats) -> NDArray[np.intp]:
    """Dimensions by their angle in the plane of the two first principal components."""
    if len(z_ND) < 3:
        return np.arange(z_ND.shape[1])
    some_MD = z_ND[np.unique(np.linspace(0, len(z_ND) - 1, ORDERED_BY).astype(int))].astype(np.float64)
    _, vectors_MM = np.linalg.eigh(some_MD @ some_MD.T)  # ascending
    second_D, first_D = vectors_MM[:, -2:].T @ some_MD
    return np.argsort(np.arctan2(second_D, first_D), kind="stable")


def pooled(values_ND: Floats) -> Floats:
    """`[N, R]`: neighbouring dimensions averaged, where there are more than fit."""
    dim = values_ND.shape[1]
    rows = min(dim, IMAGE_ROWS)
    starts = np.arange(rows) * dim // rows
    return np.add.reduceat(values_ND, starts, axis=1) / np.diff(np.append(starts, dim)).astype(np.float32)


def ticks_at(low: float, high: float, values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    return tuple(((value - low) / (high - low), f"{value:.3g}") for value in values)


def significants(values_N: Floats) -> list[Read]:
    return [significant(x) for x in values_N.tolist()]


def significant(value: float) -> float:
    """Four digits: what float16 holds, and a page can spare."""
    return float(f"{value:.4g}")


def rounded(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def decibels(amplitude: float) -> float:
    return 20 * float(np.log10(amplitude))
