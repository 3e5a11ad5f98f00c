"""A batch as a picture: above, the role of each position; below, a column for each sample, in which its sound, audio
positions, think states and targets lie on one axis of seconds. Grey is padding, or masked.

B batch, T positions of a sequence, N frames, D dim, F mel frames, M mel bands.
"""

import io
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from coat.manifests import ExpertInfo
from coat.trainer.planning.batch_view import ROLES, BatchView, SampleView, Shown, by_role, roles_of, sounds

# Told apart in every kind of colour vision (Okabe and Ito); padding is grey everywhere.
COLOURS = {"prompt": "#56b4e9", "audio": "#0072b2", "block": "#cc79a7", "label": "#d55e00", "padding": "#e0e2e7"}
INK, MUTED, NOTHING = "#1f2937", "#6b7280", COLOURS["padding"]
WIDTH_IN, DPI = 13.0, 130
LEFT_IN, RIGHT_IN, GAP_IN, TOP_IN, BOTTOM_IN = 1.75, 0.2, 0.12, 0.6, 0.5
ROW_IN, SEQUENCE_IN = 0.22, 0.5  # of a sample in the map of positions; what its axis and legend take
HEADER_IN, TRACK_IN, TICKS_IN = 0.5, 0.75, 0.28  # above a column; a target or the sound; positions
CURVES = 6  # dimensions that are drawn as curves; more are an image
CLASSES = 8  # of probabilities: those with the highest peaks in the batch
SIGMA = 2.5  # where the colours of standardised values end
VOICED = 0.5  # voicing from which f0 is drawn, and learnt: see losses.py
LETTERS = 54  # of a line in a column of four

Draw = Callable[[Axes, int], None]


def picture(shown: Shown, view: BatchView, most: int = 4) -> bytes:
    """PNG of the batch, with at most `most` samples in columns."""
    columns = min(most, len(view.samples))
    sequence_in = SEQUENCE_IN + ROW_IN * len(view.samples)
    rows: list[tuple[str, float, Draw]] = [("sound\nmel bands", TRACK_IN, mel_track(shown))]
    rows.append(("positions", TICKS_IN, lambda axes, b: draw_positions(axes, view.samples[b])))
    for name, expert in shown.experts.items():
        spec = expert.spec
        rows.append((f"{name}\n{spec.dim} x {spec.rate_hz:.4g} Hz", TRACK_IN, target_track(shown, name, expert)))
    height = TOP_IN + sequence_in + HEADER_IN + sum(tall + GAP_IN for _, tall, _ in rows) + BOTTOM_IN
    with mpl.rc_context({"text.parse_math": False, "font.size": 8}):  # a dollar in an id is no formula
        figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI)
        width = WIDTH_IN - LEFT_IN - RIGHT_IN

        def place(left_in: float, top_in: float, wide_in: float, tall_in: float) -> Axes:
            box = (left_in / WIDTH_IN, 1 - (top_in + tall_in) / height, wide_in / WIDTH_IN, tall_in / height)
            axes = figure.add_axes(box)
            axes.tick_params(labelsize=6.5, length=2, width=0.4)
            for side in axes.spines.values():
                side.set_linewidth(0.4)
                side.set_color("#9ca3af")
            return axes

        title = f"batch {view.number}: {len(view.samples)} samples, {view.padding:.0%} of positions are padding"
        figure.text(0.012, 1 - 0.25 / height, title, fontsize=11, fontweight="bold", color=INK)
        draw_sequences(place(LEFT_IN, TOP_IN, width, ROW_IN * len(view.samples)), shown, view)
        wide = (width - GAP_IN * (columns - 1)) / columns
        end_s = max(axis_end(shown, sample) for sample in view.samples[:columns])
        for b in range(columns):
            left, top = LEFT_IN + b * (wide + GAP_IN), TOP_IN + sequence_in
            header(figure, view.samples[b], b, left / WIDTH_IN, 1 - top / height, height, round(LETTERS * 4 / columns))
            top += HEADER_IN
            for i, (label, tall, draw) in enumerate(rows):
                axes = place(left, top, wide, tall)
                axes.set_facecolor(NOTHING)
                axes.set_yticks([])
                draw(axes, b)
                axes.set_xlim(0, end_s)
                axes.axvline(view.samples[b].seconds, color=INK, linewidth=0.7, linestyle=":")
                if b:
                    axes.set_yticks([])
                else:
                    figure.text(0.012, 1 - (top + tall / 2) / height, label, va="center", color=INK, fontsize=7.5)
                if i + 1 < len(rows):
                    axes.set_xticks([])
                else:
                    axes.set_xlabel("seconds")
                top += tall + GAP_IN
        return saved(figure)


def draw_sequences(axes: Axes, shown: Shown, view: BatchView) -> None:
    """Every sample's positions, coloured by role."""
    roles_BT = np.array([[ROLES.index(role) for role in roles_of(shown, b)] for b in range(len(view.samples))])
    colours = ListedColormap([COLOURS[role] for role in ROLES])
    axes.imshow(roles_BT, aspect="auto", interpolation="nearest", cmap=colours, vmin=-0.5, vmax=len(ROLES) - 0.5)
    for b in range(1, len(view.samples)):
        axes.axhline(b - 0.5, color="white", linewidth=1.5)
    axes.set_yticks(range(len(view.samples)), [f"{b}  {cut(s.id, 18)}" for b, s in enumerate(view.samples)])
    axes.set_xlabel("position", labelpad=1)
    legend = [Patch(color=COLOURS[role], label="label (cross-entropy)" if role == "label" else role) for role in ROLES]
    axes.legend(
        handles=legend, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(ROLES), frameon=False, borderaxespad=0.2
    )


def header(figure: Figure, sample: SampleView, b: int, x: float, y: float, height: float, letters: int) -> None:
    asked = [s.text for s in sample.segments if s.role == "prompt"]
    counts = by_role(sample)
    lines = [
        (f"{b}  {sample.id}, {sample.seconds:.2f} s", {"fontweight": "bold", "color": INK}),
        (f"{sample.positions} positions, {counts['label']} of them label", {"color": MUTED, "fontsize": 6.5}),
        (asked[-1].lstrip() if asked else "no prompt", {"color": "#0369a1", "fontsize": 6.5}),
        (f"label: {sample.response}" if sample.response else "no label", {"color": COLOURS["label"], "fontsize": 6.5}),
    ]
    for i, (line, style) in enumerate(lines):
        wide = letters if i else letters * 2 // 3
        figure.text(x, y + (0.05 - 0.125 * i) / height, cut(line, wide), **style)


def mel_track(shown: Shown) -> Draw:
    """The features as the tower is given them, without their padding; one scale for the batch."""
    found = sounds(shown)
    values = [mel[0] for mel in found if mel]
    low, high = (min(float(v.min()) for v in values), max(float(v.max()) for v in values)) if values else (0.0, 1.0)

    def draw(axes: Axes, b: int) -> None:
        mel = found[b]
        if mel is None:
            write(axes, "no mel features")
            return
        end_s = mel[0].shape[1] * shown.student.hop / shown.student.sample_rate
        image(axes, mel[0].float().numpy(), (0.0, end_s), "magma", low, high)

    return draw


def draw_positions(axes: Axes, sample: SampleView) -> None:
    """Audio positions as cells, spread over the sound; think states as marks at their nominal times."""
    count = by_role(sample)["audio"]
    edges = np.linspace(0, sample.seconds, count + 1)
    for i in range(count):
        shade = 1.0 if i % 2 else 0.6
        axes.axvspan(edges[i], edges[i + 1], ymin=0.5, color=COLOURS["audio"], alpha=shade, linewidth=0)
    for _, time in sample.think:
        axes.axvline(time, ymax=0.5, color=COLOURS["block"], linewidth=1.6)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.75], [f"{len(sample.think)} think", f"{count} audio"])


def target_track(shown: Shown, name: str, expert: ExpertInfo) -> Draw:
    """Probabilities and pitch as they are; all else standardised, as the losses compare it."""
    target, spec = shown.batch.targets[name], expert.spec
    values_BND, mask_BN = target.frames_BND.numpy().copy(), target.mask_BN.numpy()
    std_D = np.array(expert.std)
    scaled_BND = (values_BND - np.array(expert.mean)) / np.where(std_D > 0, std_D, np.inf)
    for each in (values_BND, scaled_BND):
        each[~mask_BN] = np.nan
    frames = values_BND.shape[1]
    edges_N = spec.start_s + (np.arange(frames + 1) - 0.5) / spec.rate_hz
    names = list(spec.channels) or [f"dim {d}" for d in range(spec.dim)]

    def draw(axes: Axes, b: int) -> None:
        if not mask_BN[b].any():
            write(axes, "no target: masked")
        elif spec.kind == "pitch":
            draw_pitch(axes, values_BND[b], edges_N, scale)
        elif spec.kind in ("probabilities", "distribution"):
            if spec.dim == 1:
                draw_curves(axes, values_BND[b], edges_N, (-0.05, 1.05))
                axes.set_yticks([0, 1])
            else:
                image(axes, values_BND[b][:, top].T, (edges_N[0], edges_N[-1]), "Blues", 0.0, 1.0)
                axes.set_yticks((np.arange(len(top)) + 0.5) / len(top), [cut(names[d], 15) for d in top])
                axes.tick_params(axis="y", labelsize=4.5)
        elif spec.dim <= CURVES:
            draw_curves(axes, scaled_BND[b], edges_N, (-2 * SIGMA, 2 * SIGMA))
            axes.set_yticks([-3, 0, 3], ["-3 σ", "0", "3 σ"])
        else:
            image(axes, scaled_BND[b].T, (edges_N[0], edges_N[-1]), "RdBu_r", -SIGMA, SIGMA)
            axes.set_yticks([0, 1], [cut(names[0], 15), cut(names[-1], 15)])

    present_ND = values_BND[mask_BN]
    top = np.sort(np.argsort(-present_ND.max(axis=0))[:CLASSES])[::-1] if len(present_ND) else np.arange(0)
    hz = np.exp2(present_ND[present_ND[:, 1] >= VOICED, 0]) if spec.kind == "pitch" else np.zeros(0)
    scale = (float(hz.min()) / 1.2, float(hz.max()) * 1.2) if len(hz) else (40.0, 600.0)
    return draw


def draw_pitch(axes: Axes, frames_ND: NDArray, edges_N: NDArray, scale: tuple[float, float]) -> None:
    """f0 where it is voiced, over how voiced each frame is."""
    voicing_N = frames_ND[:, 1]
    low, high = scale
    image(axes, voicing_N[None], (edges_N[0], edges_N[-1]), ListedColormap(["#ffffff", "#fdf3d0", "#fbe7a2"]), 0, 1)
    f0_N = np.where(voicing_N >= VOICED, np.log2(np.exp2(frames_ND[:, 0]) / low) / np.log2(high / low), np.nan)
    axes.stairs(f0_N, edges_N, baseline=None, color=COLOURS["audio"], linewidth=1.4)
    axes.set_yticks([0, 1], [f"{low:.0f} Hz", f"{high:.0f} Hz"])


def draw_curves(axes: Axes, frames_ND: NDArray, edges_N: NDArray, limits: tuple[float, float]) -> None:
    good_N = np.isfinite(frames_ND).all(axis=1)
    image(axes, np.where(good_N, 0.0, np.nan)[None], (edges_N[0], edges_N[-1]), ListedColormap(["white"]), 0, 1)
    axes.get_images()[0].set_extent((edges_N[0], edges_N[-1], *limits))
    for values_N in frames_ND.T:
        axes.stairs(np.clip(values_N, *limits), edges_N, baseline=None, linewidth=1.0)
    axes.set_ylim(*limits)


def image(
    axes: Axes, rows_RN: NDArray, span: tuple[float, float], colours: str | Colormap, low: float, high: float
) -> None:
    """Frames over seconds; what is NaN stays grey."""
    axes.imshow(
        rows_RN, cmap=colours, vmin=low, vmax=high, extent=(*span, 0.0, 1.0), aspect="auto", origin="lower",
        interpolation="nearest",
    )  # fmt: skip
    axes.set_ylim(0, 1)


def write(axes: Axes, what: str) -> None:
    axes.text(0.5, 0.5, what, ha="center", va="center", transform=axes.transAxes, color=MUTED)


def axis_end(shown: Shown, sample: SampleView) -> float:
    """Seconds that a column spans: to the batch's longest sound, or the end of a frame behind it."""
    ends = [t.last_s + 0.5 / t.rate_hz for t in sample.targets if t.last_s is not None]
    return max([float(shown.batch.seconds_B.max()), *ends])


def cut(text: str, letters: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= letters else line[: letters - 1] + "…"


def saved(figure: Figure) -> bytes:
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
