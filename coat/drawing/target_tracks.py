"""A target, as tracks: by its kind and size, curves, bands of classes, or an image.

N frames, D dim, R rows of an image.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coat.drawing.panels import Floats, Readout, Track, ticks_at
from coat.drawing.text import rounded_number
from coat.manifests.targets.spec import TargetSpec

MAX_CURVES = 32  # dimensions that are drawn as curves, one below the other; more of them are an image
MAX_TALL_CURVES = 6  # of these there is room for tall ones
MAX_CLASSES, MIN_CLASSES = 10, 3  # of many: at most, and at least
SHOWN_FROM = 0.05  # probability below which a class is not worth a band
IMAGE_ROWS = 128  # at most: more dimensions are averaged with their neighbours
MAX_ORDERING_FRAMES = 512  # frames that the order of an image's dimensions is found from
VOICED_FROM = 0.5  # voicing from which f0 is drawn
F0_PERCENTILES = 1, 99  # of the voiced frames, that the scale spans: a jump of octaves is cut at its edge
NO_F0_HZ = 40.0, 600.0  # the scale where no frame is voiced
F0_OCTAVE_HZ = 100, 120, 140, 170  # quarters of an octave, rounded
F0_TICKS_HZ = tuple(hz * 2**octave for octave in (-2, -1, 0, 1, 2, 3, 4) for hz in F0_OCTAVE_HZ)
UNITS = {"_hz": "Hz", "_db": "dB", "_s": "s"}  # that a channel's name ends in


def target_tracks(frames_ND: Floats, spec: TargetSpec) -> tuple[tuple[Track, ...], str, str]:
    """The tracks of a target, how they are drawn, and what their values are where that needs words."""
    names = list(spec.channels) or [f"dim {i}" for i in range(spec.dim)]
    if spec.kind == "pitch":
        voiced = (frames_ND[:, 1] >= VOICED_FROM).any()
        drawn = f"f0 is {'broken where' if voiced else 'nowhere drawn:'} voicing is below {VOICED_FROM}"
        return pitch_tracks(frames_ND, names), drawn, ""
    if spec.kind in ("probabilities", "distribution"):
        return *class_tracks(frames_ND, names), ""
    if spec.dim <= MAX_CURVES:
        height = 54 if spec.dim <= MAX_TALL_CURVES else 24
        return (
            tuple(curve_track(n, x, height) for n, x in zip(names, frames_ND.T, strict=True)),
            "each on its own scale",
            "",
        )
    if spec.kind == "scalars" and spec.family == "reconstruction":
        return (spectrum_track(frames_ND, names),), "one scale for all", "the value is of the strongest channel"
    track, drawn = standardised_track(frames_ND, names, spec)
    return (track,), drawn, "the value is the frame's norm and its oddest dimension"


def pitch_tracks(frames_ND: Floats, names: Sequence[str]) -> tuple[Track, ...]:
    """f0 on a log axis, then voicing, then what else there is."""
    hz_N = voiced_hz(frames_ND)
    rest = [curve_track(n, x, 54) for n, x in zip(names[2:], frames_ND.T[2:], strict=True)]
    return f0_track(hz_N, hz_N), probability_track(names[1], frames_ND[:, 1]), *rest


def voiced_hz(frames_ND: Floats) -> Floats:
    """f0 of each frame in Hz, `[N]`; NaN where it is not voiced."""
    return np.where(frames_ND[:, 1] >= VOICED_FROM, np.exp2(frames_ND[:, 0]), np.nan).astype(np.float32)


def f0_track(hz_N: Floats, scaled_N: Floats) -> Track:
    """On a log axis whose scale spans `scaled_N`, which may hold more than what is drawn."""
    voiced = scaled_N[np.isfinite(scaled_N)]
    low, high = NO_F0_HZ
    if len(voiced):
        low, high = (float(hz) for hz in np.percentile(voiced, F0_PERCENTILES) * (1 / 1.2, 1.2))
    if high < 2 * low:  # less than an octave would make much of a little
        low, high = (low * high) ** 0.5 / 2**0.5, (low * high) ** 0.5 * 2**0.5
    inside = [hz for hz in F0_TICKS_HZ[:: 1 if high < 3 * low else 2 if high < 10 * low else 4] if low <= hz <= high]
    return Track(
        name="f0",
        style="line",
        values=hz_N,
        low=low,
        high=high,
        readouts=[None if np.isnan(x) else four_digits(x) for x in hz_N.tolist()],
        height=110,
        unit="Hz",
        log=True,
        ticks=tuple((float(np.log(hz / low) / np.log(high / low)), f"{hz:g}") for hz in inside),
    )


def class_tracks(frames_ND: Floats, names: Sequence[str]) -> tuple[tuple[Track, ...], str]:
    if len(names) <= MAX_TALL_CURVES:
        return tuple(probability_track(n, x) for n, x in zip(names, frames_ND.T, strict=True)), "from 0 to 1"
    bands = [
        Track(
            name=names[d],
            style="band",
            values=frames_ND[:, d],
            low=0.0,
            high=1.0,
            readouts=three_decimal_readouts(frames_ND[:, d]),
            height=20,
        )
        for d in class_order(frames_ND)
    ]
    return tuple(bands), f"{len(bands)} of {len(names)} classes, those with the highest peaks; probability"


def class_order(frames_ND: Floats) -> list[int]:
    """Of many classes those that are worth a band, the highest peak first."""
    peaks_D, means_D = frames_ND.max(axis=0), frames_ND.mean(axis=0)
    top: list[int] = np.lexsort((-means_D, -peaks_D))[:MAX_CLASSES].tolist()
    return top[: max(MIN_CLASSES, int((peaks_D[top] >= SHOWN_FROM).sum()))]


def probability_track(name: str, values_N: Floats) -> Track:
    return Track(
        name=name,
        style="area",
        values=values_N,
        low=0.0,
        high=1.0,
        readouts=three_decimal_readouts(values_N),
        height=54,
        ticks=((0.0, "0"), (1.0, "1")),
    )


def curve_track(name: str, values_N: Floats, height: int, scaled_N: Floats | None = None) -> Track:
    """On a scale that spans `scaled_N`, by default the values themselves."""
    scaled_N = values_N if scaled_N is None else scaled_N
    least, most = float(scaled_N.min()), float(scaled_N.max())
    margin = 0.08 * (most - least) or max(1e-3, 0.1 * abs(most))
    low, high = least - margin, most + margin
    return Track(
        name=name,
        style="line",
        values=values_N,
        low=low,
        high=high,
        readouts=four_digit_readouts(values_N),
        height=height,
        unit=next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), ""),
        ticks=ticks_at(low, high, [least, most] if most > least else [least]),
    )


def spectrum_track(frames_ND: Floats, names: Sequence[str]) -> Track:
    """Channels of one kind, such as the bands of a spectrogram."""
    strongest = frames_ND.argmax(axis=1).tolist()
    return Track(
        name="channel",
        style="image",
        values=average_neighbours(frames_ND),
        low=float(frames_ND.min()),
        high=float(max(frames_ND.max(), frames_ND.min() + 1e-6)),
        readouts=[f"{names[d]}: {rounded_number(frames_ND[i, d])}" for i, d in enumerate(strongest)],
        height=128,
        colour_map="magma",
        ticks=((0.0, names[0]), (1.0, names[-1])),
    )


def standardised_track(frames_ND: Floats, names: Sequence[str], spec: TargetSpec) -> tuple[Track, str]:
    """Hidden states: each dimension less its mean and over its deviation, and those side by side that move together.

    As they are, a few dimensions of great size would hide all others, and neighbours have nothing in common.
    """
    wide_ND = frames_ND.astype(np.float64)
    deviation_D = wide_ND.std(axis=0)
    z_ND = ((wide_ND - wide_ND.mean(axis=0)) / np.where(deviation_D > 0, deviation_D, 1.0)).astype(np.float32)
    image_NR = average_neighbours(z_ND[:, order_by_similarity(z_ND)])
    most = float(np.percentile(np.abs(image_NR), 99)) or 1.0
    norms_N, oddest = np.linalg.norm(wide_ND, axis=1), np.abs(z_ND).argmax(axis=1)
    readouts = [
        f"norm {rounded_number(norms_N[i])}; {names[d]}: {z_ND[i, d]:+.1f} σ" for i, d in enumerate(oddest.tolist())
    ]
    track = Track(
        name=f"{spec.dim} dimensions",
        style="image",
        values=image_NR,
        low=-most,
        high=most,
        readouts=readouts,
        height=128,
        unit="σ",
        colour_map="RdBu_r",
    )
    if len(frames_ND) == 1:
        return track, "one frame, and nothing to compare it with"
    each = -(-spec.dim // image_NR.shape[1])
    averaged = f", up to {each} averaged in a row" if each > 1 else ""
    return track, f"dimensions standardised, those side by side that move together{averaged}"


def order_by_similarity(z_ND: Floats) -> NDArray[np.intp]:
    """Dimensions by their angle in the plane of the two first principal components."""
    if len(z_ND) < 3:
        return np.arange(z_ND.shape[1])
    some_MD = z_ND[np.unique(np.linspace(0, len(z_ND) - 1, MAX_ORDERING_FRAMES).astype(int))].astype(np.float64)
    _, vectors_MM = np.linalg.eigh(some_MD @ some_MD.T)  # ascending
    second_D, first_D = vectors_MM[:, -2:].T @ some_MD
    return np.argsort(np.arctan2(second_D, first_D), kind="stable")


def average_neighbours(values_ND: Floats) -> Floats:
    """`[N, R]`: neighbouring dimensions averaged, where there are more than fit."""
    dim = values_ND.shape[1]
    rows = min(dim, IMAGE_ROWS)
    starts = np.arange(rows) * dim // rows
    sums_NR = np.add.reduceat(values_ND, starts, axis=1)
    return (sums_NR / np.diff(np.append(starts, dim))).astype(np.float32)


def four_digit_readouts(values_N: Floats) -> list[Readout]:
    return [four_digits(x) for x in values_N.tolist()]


def three_decimal_readouts(values_N: Floats) -> list[Readout]:
    return [round(x, 3) for x in values_N.tolist()]


def four_digits(value: float) -> float:
    """Four digits: what float16 holds, and a page can spare."""
    return float(f"{value:.4g}")
