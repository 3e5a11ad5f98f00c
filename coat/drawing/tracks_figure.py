"""All panels of a page as one picture, for a paper."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coat.drawing.figures import INK, to_png
from coat.drawing.panels import Panel, TimeAxis, Track
from coat.drawing.text import shorten
from coat.drawing.tracks import PAGE_DPI, draw_track, time_ticks, value_at_height

FIGURE_WIDTH_IN, FIGURE_DPI = 10.0, 160
FIGURE_SCALE = 0.8 / PAGE_DPI  # inches of a figure to a pixel of the page
LEFT_IN, RIGHT_IN, TITLE_IN, GAP_IN, TOP_IN, BOTTOM_IN = 1.9, 0.15, 0.22, 0.05, 0.55, 0.5
MARGIN = 0.012  # of the width
NAME_LETTERS, TITLE_LETTERS, TEXT_LETTERS = 28, 145, 170


def tracks_figure(title: str, said: str, panels: Sequence[Panel], axis: TimeAxis) -> bytes:
    """All panels in one figure, below a title and a line of text, as PNG."""
    heights = [TITLE_IN + sum(t.height * FIGURE_SCALE + GAP_IN for t in p.tracks) + GAP_IN for p in panels]
    height = TOP_IN + sum(heights) + BOTTOM_IN
    with mpl.rc_context({"text.parse_math": False, "font.size": 8}):  # a dollar in an id is no formula
        figure = Figure(figsize=(FIGURE_WIDTH_IN, height), dpi=FIGURE_DPI)
        left = LEFT_IN / FIGURE_WIDTH_IN
        width = 1 - left - RIGHT_IN / FIGURE_WIDTH_IN
        draw_head(figure, title, said, height)
        y, drawn = height - TOP_IN, []
        for panel, tall in zip(panels, heights, strict=True):
            draw_panel_label(figure, panel, (y - TITLE_IN * 0.7) / height)
            at = y - TITLE_IN
            for track in panel.tracks:
                at -= track.height * FIGURE_SCALE
                axes = figure.add_axes((left, at / height, width, track.height * FIGURE_SCALE / height))
                draw_track(axes, track, panel, axis)
                draw_scale(axes, track)
                drawn.append(axes)
                at -= GAP_IN
            y -= tall
        if drawn:
            drawn[-1].set_xticks(time_ticks(axis.start_s, axis.until_s))
            drawn[-1].set_xlabel("seconds")
        return to_png(figure, palette=False)


def draw_head(figure: Figure, title: str, said: str, height: float) -> None:
    figure.text(MARGIN, 1 - 0.22 / height, shorten(title, TEXT_LETTERS // 2), fontsize=11, fontweight="bold", color=INK)
    figure.text(MARGIN, 1 - 0.40 / height, shorten(said, TEXT_LETTERS), color=INK)


def draw_panel_label(figure: Figure, panel: Panel, y: float) -> None:
    """The panel's name, what is to know of it, and what is wrong."""
    figure.text(MARGIN, y, shorten(panel.title, 2 * NAME_LETTERS), fontweight="bold", color=INK)
    spec = panel.spec
    facts = f"{spec.dim} × {spec.rate_hz:.5g} Hz, {spec.fingerprint}" if spec else ""
    description = panel.problem or "; ".join(filter(None, [panel.measured, facts, panel.description]))
    colour = "#b45309" if panel.problem else "#6b7280"
    figure.text(LEFT_IN / FIGURE_WIDTH_IN, y, shorten(description, TITLE_LETTERS), fontsize=7, color=colour)


def draw_scale(axes: Axes, track: Track) -> None:
    """Names and scales at the left, the frame around."""
    for side in axes.spines.values():
        side.set_linewidth(0.4)
        side.set_color("#9ca3af")
    axes.minorticks_off()
    axes.set_xticks([])
    axes.tick_params(labelsize=6, length=2, width=0.4)
    banded = track.style in ("band", "image")
    heights = [y if banded else value_at_height(track, y) for y, _ in track.ticks]
    axes.set_yticks(heights, [shorten(text, 10) for _, text in track.ticks])
    name = f"{track.name}, {track.unit}" if track.unit else track.name
    figure, box = axes.figure, axes.get_position()
    figure.text(
        MARGIN, (box.y0 + box.y1) / 2, shorten(name, NAME_LETTERS), va="center_baseline", fontsize=6.5, color=INK
    )
