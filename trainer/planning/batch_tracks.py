"""What a column of the picture shows of a sample: its sound, its positions and each target, on one axis of seconds.

B batch, N frames, D dim, F mel frames, M mel bands.
"""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from numpy.typing import NDArray

from coat.drawing.text import shorten
from coat.manifests import ExpertInfo
from coat.trainer.model.losses import VOICED
from coat.trainer.planning.batch_view import InspectedBatch, SampleView, mel_features, positions_by_role

# Distinct in every kind of colour vision (Okabe and Ito); padding is grey everywhere.
COLOURS = {"prompt": "#56b4e9", "audio": "#0072b2", "block": "#cc79a7", "label": "#d55e00", "padding": "#e0e2e7"}
MUTED = "#6b7280"
MAX_CURVES = 6  # dimensions that are drawn as curves; more are an image
MAX_CLASSES = 8  # of probabilities: those with the highest peaks in the batch
MAX_SIGMA = 2.5  # where the colours of standardised values end

Draw = Callable[[Axes, int], None]


def mel_track(inspected: InspectedBatch) -> Draw:
    """The features as the tower is given them, without their padding; one scale for the batch."""
    features = mel_features(inspected)
    values = [mel[0] for mel in features if mel]
    low, high = (min(float(v.min()) for v in values), max(float(v.max()) for v in values)) if values else (0.0, 1.0)

    def draw(axes: Axes, b: int) -> None:
        mel = features[b]
        if mel is None:
            write_note(axes, "no mel features")
            return
        end_s = mel[0].shape[1] * inspected.student.hop / inspected.student.sample_rate
        draw_image(axes, mel[0].float().numpy(), (0.0, end_s), "magma", low, high)

    return draw


def draw_positions(axes: Axes, sample: SampleView) -> None:
    """Audio positions as cells, spread over the sound; think states as marks at their nominal times."""
    count = positions_by_role(sample)["audio"]
    edges = np.linspace(0, sample.seconds, count + 1)
    for i in range(count):
        shade = 1.0 if i % 2 else 0.6
        axes.axvspan(edges[i], edges[i + 1], ymin=0.5, color=COLOURS["audio"], alpha=shade, linewidth=0)
    for _, time in sample.think:
        axes.axvline(time, ymax=0.5, color=COLOURS["block"], linewidth=1.6)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.75], [f"{len(sample.think)} think", f"{count} audio"])


def target_track(inspected: InspectedBatch, name: str, expert: ExpertInfo) -> Draw:
    """Probabilities and pitch as they are; all else standardised, as the losses compare it."""
    target, spec = inspected.batch.targets[name], expert.spec
    values_BND, mask_BN = target.frames_BND.numpy().copy(), target.mask_BN.numpy()
    std_D = np.array(expert.std)
    scaled_BND = (values_BND - np.array(expert.mean)) / np.where(std_D > 0, std_D, np.inf)
    for array_BND in (values_BND, scaled_BND):
        array_BND[~mask_BN] = np.nan
    frames = values_BND.shape[1]
    edges_N = spec.start_s + (np.arange(frames + 1) - 0.5) / spec.rate_hz
    names = list(spec.channels) or [f"dim {d}" for d in range(spec.dim)]

    def draw(axes: Axes, b: int) -> None:
        if not mask_BN[b].any():
            write_note(axes, "no target: masked")
        elif spec.kind == "pitch":
            draw_pitch(axes, values_BND[b], edges_N, scale)
        elif spec.kind in ("probabilities", "distribution"):
            if spec.dim == 1:
                draw_curves(axes, values_BND[b], edges_N, (-0.05, 1.05))
                axes.set_yticks([0, 1])
            else:
                draw_image(axes, values_BND[b][:, top].T, (edges_N[0], edges_N[-1]), "Blues", 0.0, 1.0)
                axes.set_yticks((np.arange(len(top)) + 0.5) / len(top), [shorten(names[d], 15) for d in top])
                axes.tick_params(axis="y", labelsize=4.5)
        elif spec.dim <= MAX_CURVES:
            draw_curves(axes, scaled_BND[b], edges_N, (-2 * MAX_SIGMA, 2 * MAX_SIGMA))
            axes.set_yticks([-3, 0, 3], ["-3 σ", "0", "3 σ"])
        else:
            draw_image(axes, scaled_BND[b].T, (edges_N[0], edges_N[-1]), "RdBu_r", -MAX_SIGMA, MAX_SIGMA)
            axes.set_yticks([0, 1], [shorten(names[0], 15), shorten(names[-1], 15)])

    present_ND = values_BND[mask_BN]
    top = np.sort(np.argsort(-present_ND.max(axis=0))[:MAX_CLASSES])[::-1] if len(present_ND) else np.arange(0)
    hz = np.exp2(present_ND[present_ND[:, 1] >= VOICED, 0]) if spec.kind == "pitch" else np.zeros(0)
    scale = (float(hz.min()) / 1.2, float(hz.max()) * 1.2) if len(hz) else (40.0, 600.0)
    return draw


def draw_pitch(axes: Axes, frames_ND: NDArray, edges_N: NDArray, scale: tuple[float, float]) -> None:
    """f0 where it is voiced, over how voiced each frame is."""
    voicing_N = frames_ND[:, 1]
    low, high = scale
    draw_image(
        axes, voicing_N[None], (edges_N[0], edges_N[-1]), ListedColormap(["#ffffff", "#fdf3d0", "#fbe7a2"]), 0, 1
    )
    f0_N = np.where(voicing_N >= VOICED, np.log2(np.exp2(frames_ND[:, 0]) / low) / np.log2(high / low), np.nan)
    axes.stairs(f0_N, edges_N, baseline=None, color=COLOURS["audio"], linewidth=1.4)
    axes.set_yticks([0, 1], [f"{low:.0f} Hz", f"{high:.0f} Hz"])


def draw_curves(axes: Axes, frames_ND: NDArray, edges_N: NDArray, limits: tuple[float, float]) -> None:
    finite_N = np.isfinite(frames_ND).all(axis=1)
    draw_image(axes, np.where(finite_N, 0.0, np.nan)[None], (edges_N[0], edges_N[-1]), ListedColormap(["white"]), 0, 1)
    axes.get_images()[0].set_extent((edges_N[0], edges_N[-1], *limits))
    for values_N in frames_ND.T:
        axes.stairs(np.clip(values_N, *limits), edges_N, baseline=None, linewidth=1.0)
    axes.set_ylim(*limits)


def draw_image(
    axes: Axes, rows_RN: NDArray, span: tuple[float, float], colours: str | Colormap, low: float, high: float
) -> None:
    """Frames over seconds; what is NaN stays grey."""
    axes.imshow(
        rows_RN, cmap=colours, vmin=low, vmax=high, extent=(*span, 0.0, 1.0), aspect="auto", origin="lower",
        interpolation="nearest",
    )  # fmt: skip
    axes.set_ylim(0, 1)


def write_note(axes: Axes, note: str) -> None:
    axes.text(0.5, 0.5, note, ha="center", va="center", transform=axes.transAxes, color=MUTED)
