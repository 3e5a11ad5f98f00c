"""A batch as a picture: above, the role of each position; below, a column for each sample, in which its sound, audio
positions, think states and targets lie on one axis of seconds. Grey is padding, or masked.

B batch, T positions of a sequence.
"""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from coat.drawing.figures import INK, to_png
from coat.drawing.text import shorten
from coat.trainer.planning.batch_tracks import (
    COLOURS,
    MUTED,
    Draw,
    draw_positions,
    mel_track,
    target_track,
)
from coat.trainer.planning.batch_view import ROLES, BatchView, InspectedBatch, SampleView, positions_by_role, roles_of

EMPTY = COLOURS["padding"]
WIDTH_IN, DPI = 13.0, 130
LEFT_IN, RIGHT_IN, GAP_IN, TOP_IN, BOTTOM_IN = 1.75, 0.2, 0.12, 0.6, 0.5
ROW_IN, SEQUENCE_IN = 0.22, 0.5  # of a sample in the map of positions; what its axis and legend take
HEADER_IN, TRACK_IN, TICKS_IN = 0.5, 0.75, 0.28  # above a column; a target or the sound; positions
LETTERS = 54  # of a line in a column of four


def draw_batch(inspected: InspectedBatch, view: BatchView, max_columns: int = 4) -> bytes:
    """PNG of the batch, with at most `max_columns` samples."""
    columns = min(max_columns, len(view.samples))
    sequence_in = SEQUENCE_IN + ROW_IN * len(view.samples)
    rows: list[tuple[str, float, Draw]] = [("sound\nmel bands", TRACK_IN, mel_track(inspected))]
    rows.append(("positions", TICKS_IN, lambda axes, b: draw_positions(axes, view.samples[b])))
    for name, expert in inspected.experts.items():
        spec = expert.spec
        rows.append((f"{name}\n{spec.dim} x {spec.rate_hz:.4g} Hz", TRACK_IN, target_track(inspected, name, expert)))
    height = TOP_IN + sequence_in + HEADER_IN + sum(height_in + GAP_IN for _, height_in, _ in rows) + BOTTOM_IN
    with mpl.rc_context({"text.parse_math": False, "font.size": 8}):  # a dollar in an id is no formula
        figure = Figure(figsize=(WIDTH_IN, height), dpi=DPI)
        width = WIDTH_IN - LEFT_IN - RIGHT_IN

        def add_axes(left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
            box = (left_in / WIDTH_IN, 1 - (top_in + height_in) / height, width_in / WIDTH_IN, height_in / height)
            axes = figure.add_axes(box)
            axes.tick_params(labelsize=6.5, length=2, width=0.4)
            for side in axes.spines.values():
                side.set_linewidth(0.4)
                side.set_color("#9ca3af")
            return axes

        title = f"batch {view.number}: {len(view.samples)} samples, {view.padding:.0%} of positions are padding"
        figure.text(0.012, 1 - 0.25 / height, title, fontsize=11, fontweight="bold", color=INK)
        draw_sequences(add_axes(LEFT_IN, TOP_IN, width, ROW_IN * len(view.samples)), inspected, view)
        column_in = (width - GAP_IN * (columns - 1)) / columns
        end_s = max(axis_end(inspected, sample) for sample in view.samples[:columns])
        for b in range(columns):
            left, top = LEFT_IN + b * (column_in + GAP_IN), TOP_IN + sequence_in
            header(figure, view.samples[b], b, left / WIDTH_IN, 1 - top / height, height, round(LETTERS * 4 / columns))
            top += HEADER_IN
            for i, (label, row_in, draw) in enumerate(rows):
                axes = add_axes(left, top, column_in, row_in)
                axes.set_facecolor(EMPTY)
                axes.set_yticks([])
                draw(axes, b)
                axes.set_xlim(0, end_s)
                axes.axvline(view.samples[b].seconds, color=INK, linewidth=0.7, linestyle=":")
                if b:
                    axes.set_yticks([])
                else:
                    figure.text(0.012, 1 - (top + row_in / 2) / height, label, va="center", color=INK, fontsize=7.5)
                if i + 1 < len(rows):
                    axes.set_xticks([])
                else:
                    axes.set_xlabel("seconds")
                top += row_in + GAP_IN
        return to_png(figure, palette=False)


def draw_sequences(axes: Axes, inspected: InspectedBatch, view: BatchView) -> None:
    """Every sample's positions, coloured by role."""
    roles_BT = np.array([[ROLES.index(role) for role in roles_of(inspected, b)] for b in range(len(view.samples))])
    colours = ListedColormap([COLOURS[role] for role in ROLES])
    axes.imshow(roles_BT, aspect="auto", interpolation="nearest", cmap=colours, vmin=-0.5, vmax=len(ROLES) - 0.5)
    for b in range(1, len(view.samples)):
        axes.axhline(b - 0.5, color="white", linewidth=1.5)
    axes.set_yticks(range(len(view.samples)), [f"{b}  {shorten(s.id, 18)}" for b, s in enumerate(view.samples)])
    axes.set_xlabel("position", labelpad=1)
    legend = [Patch(color=COLOURS[role], label="label (cross-entropy)" if role == "label" else role) for role in ROLES]
    axes.legend(
        handles=legend, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(ROLES), frameon=False, borderaxespad=0.2
    )


def header(figure: Figure, sample: SampleView, b: int, x: float, y: float, height: float, letters: int) -> None:
    prompts = [s.text for s in sample.segments if s.role == "prompt"]
    counts = positions_by_role(sample)
    lines = [
        (f"{b}  {sample.id}, {sample.seconds:.2f} s", {"fontweight": "bold", "color": INK}),
        (f"{sample.positions} positions, {counts['label']} of them label", {"color": MUTED, "fontsize": 6.5}),
        (prompts[-1].lstrip() if prompts else "no prompt", {"color": "#0369a1", "fontsize": 6.5}),
        (f"label: {sample.response}" if sample.response else "no label", {"color": COLOURS["label"], "fontsize": 6.5}),
    ]
    for i, (line, style) in enumerate(lines):
        most = letters if i else letters * 2 // 3
        figure.text(x, y + (0.05 - 0.125 * i) / height, shorten(line, most), **style)


def axis_end(inspected: InspectedBatch, sample: SampleView) -> float:
    """Seconds that a column spans: to the batch's longest sound, or the end of a frame behind it."""
    ends = [t.last_s + 0.5 / t.rate_hz for t in sample.targets if t.last_s is not None]
    return max([float(inspected.batch.seconds_B.max()), *ends])
