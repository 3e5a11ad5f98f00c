"""What was heard over what was to be heard, as tracks: two values of each frame of a target, of one kind and size.

A curve lies over the target's, which is drawn below it in another colour; images stand below each other, on one scale
and with their rows in one order. What is said of a frame is "heard / target".

N frames, D dim, R rows of an image.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coat.drawing.panels import Floats, Readout, Track
from coat.drawing.target_tracks import (
    MAX_CURVES,
    MAX_TALL_CURVES,
    average_neighbours,
    class_order,
    curve_track,
    f0_track,
    four_digits,
    order_by_similarity,
    probability_track,
    spectrum_track,
    voiced_hz,
)
from coat.manifests.targets.spec import TargetSpec

LOW_CURVE = 24  # pixels of the page
CLASS_HEIGHT = 34


def compared_tracks(heard_ND: Floats, target_ND: Floats, spec: TargetSpec) -> tuple[tuple[Track, ...], str]:
    """The tracks, and how they are drawn."""
    names = list(spec.channels) or [f"dim {i}" for i in range(spec.dim)]
    if spec.kind == "pitch":
        return pitch_tracks(heard_ND, target_ND, names), "f0 is broken where voicing is below 0.5"
    if spec.kind in ("probabilities", "distribution"):
        return class_tracks(heard_ND, target_ND, names)
    if spec.dim <= MAX_CURVES:
        height = 54 if spec.dim <= MAX_TALL_CURVES else LOW_CURVE
        pairs = zip(names, heard_ND.T, target_ND.T, strict=True)
        return tuple(over(curve_track(n, x, height, np.append(x, y)), y) for n, x, y in pairs), "each on its own scale"
    if spec.kind == "scalars" and spec.family == "reconstruction":
        both = np.concatenate([heard_ND, target_ND])
        scale = {"low": float(both.min()), "high": float(max(both.max(), both.min() + 1e-6))}
        heard, target = (replace(spectrum_track(x_ND, names), **scale) for x_ND in (heard_ND, target_ND))
        # One image stands on the other: where they meet there is no room for the names of both edges.
        heard = replace(heard, name="heard", ticks=heard.ticks[1:])
        return (heard, replace(target, name="target", ticks=target.ticks[:1])), "one scale for both"
    return image_tracks(
        heard_ND, target_ND
    ), "dimensions standardised by the target's, in one order; one scale for both"


def pitch_tracks(heard_ND: Floats, target_ND: Floats, names: Sequence[str]) -> tuple[Track, ...]:
    heard_N, target_N = voiced_hz(heard_ND), voiced_hz(target_ND)
    f0 = over(f0_track(heard_N, np.append(heard_N, target_N)), target_N)
    voicing = over(probability_track(names[1], heard_ND[:, 1]), target_ND[:, 1])
    pairs = zip(names[2:], heard_ND.T[2:], target_ND.T[2:], strict=True)
    return f0, voicing, *(over(curve_track(n, x, 54, np.append(x, y)), y) for n, x, y in pairs)


def class_tracks(heard_ND: Floats, target_ND: Floats, names: Sequence[str]) -> tuple[tuple[Track, ...], str]:
    if len(names) <= MAX_TALL_CURVES:
        shown, drawn = list(range(len(names))), "from 0 to 1"
    else:
        shown = class_order(np.concatenate([heard_ND, target_ND]))
        drawn = f"{len(shown)} of {len(names)} classes, those with the highest peaks in either; probability"
    tracks = (over(probability_track(names[d], heard_ND[:, d]), target_ND[:, d]) for d in shown)
    return tuple(replace(track, height=CLASS_HEIGHT) for track in tracks), drawn


def image_tracks(heard_ND: Floats, target_ND: Floats) -> tuple[Track, Track]:
    """Each dimension less the target's mean and over its deviation, in both: a head that says little is pale."""
    mean_D, std_D = target_ND.mean(axis=0), target_ND.std(axis=0)
    heard_z, target_z = ((x_ND - mean_D) / np.where(std_D > 0, std_D, 1.0) for x_ND in (heard_ND, target_ND))
    order = order_by_similarity(target_z)
    images = [average_neighbours(z_ND[:, order].astype(np.float32)) for z_ND in (heard_z, target_z)]
    most = float(np.percentile(np.abs(images[1]), 99)) or 1.0
    cosines_N = cosine(heard_z, target_z)
    readouts: list[Readout] = [f"cosine {x:.2f}" for x in cosines_N.tolist()]
    heard, target = (
        Track(
            name=name, style="image", values=image_NR, low=-most, high=most, readouts=readouts, height=96, unit="σ",
            colour_map="RdBu_r",
        )
        for name, image_NR in zip(("heard", "target"), images, strict=True)
    )  # fmt: skip
    return heard, target


def over(heard: Track, target_N: Floats) -> Track:
    """A curve over the target's."""
    pairs = zip(heard.readouts, target_N.tolist(), strict=True)
    readouts: list[Readout] = [f"{said(x)} / {said(None if np.isnan(y) else y)}" for x, y in pairs]
    return replace(heard, readouts=readouts, reference=np.asarray(target_N, np.float32))


def said(value: Readout) -> str:
    return "–" if value is None else f"{four_digits(value):g}" if isinstance(value, float) else str(value)


def cosine(x_ND: Floats, y_ND: Floats) -> Floats:
    """Of each frame, `[N]`; 0 where one of them is nothing."""
    sizes = np.linalg.norm(x_ND, axis=1) * np.linalg.norm(y_ND, axis=1)
    return (x_ND * y_ND).sum(axis=1) / np.where(sizes > 0, sizes, 1.0)
