"""Tracks to pictures, by matplotlib: each on its own for a page, or all of them in one figure for a paper.

Every picture spans the same seconds from its left to its right edge, so that one cursor fits all. No state is shared:
figures are made as objects, without pyplot.
"""

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from coat.drawing.figures import AREA, INK, LINE, PALE, to_png
from coat.drawing.text import shorten
from coat.pipeline.inspect.inspection import Inspection
from coat.pipeline.inspect.panels import Panel, Track

OUTSIDE = "#e7e9ee"  # behind the end of the sound, and where an image has no frame
TRACK_WIDTH, TRACK_DPI = 1000, 200  # pixels of the page, drawn twice as fine
PAGE_DPI = 100  # so many pixels of the page to an inch
FIGURE_WIDTH_IN, FIGURE_DPI = 10.0, 160
FIGURE_SCALE = 0.8 / PAGE_DPI  # inches of a figure to a pixel of the page
LEFT_IN, RIGHT_IN, TITLE_IN, GAP_IN, TOP_IN, BOTTOM_IN = 1.9, 0.15, 0.22, 0.05, 0.55, 0.5
MARGIN = 0.012  # of the width
NAME_LETTERS, TITLE_LETTERS, TEXT_LETTERS = 28, 145, 170
TICKS = 10  # on the time axis, about


def time_ticks(start_s: float, end_s: float) -> list[float]:
    """Round times, some TICKS of them."""
    rough_step = (end_s - start_s) / TICKS
    power = 10.0 ** math.floor(math.log10(rough_step))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough_step * 0.999)
    first, last = math.ceil(start_s / step - 1e-6), math.floor(end_s / step + 1e-6)
    return [i * step for i in range(first, last + 1)]


def draw_track(axes: Axes, track: Track, panel: Panel, inspection: Inspection) -> None:
    """One track, over the seconds that are shown."""
    edges = panel.edges()
    if track.style in ("band", "image"):
        cells_RN = np.atleast_2d(track.values.T)
        # More frames than pixels are averaged, so that none is passed over; fewer keep their edges.
        smooth = "auto" if cells_RN.shape[1] > TRACK_WIDTH * TRACK_DPI / PAGE_DPI else "nearest"
        image_options: dict[str, Any] = {
            "aspect": "auto",
            "origin": "lower",
            "interpolation": smooth,
            "interpolation_stage": "data",
        }
        extent = (float(edges[0]), float(edges[-1]), 0.0, 1.0)
        axes.imshow(cells_RN, cmap=track.colour_map, vmin=track.low, vmax=track.high, extent=extent, **image_options)
        axes.set_ylim(0, 1)
        axes.set_facecolor(OUTSIDE)
    else:
        for time in time_ticks(inspection.start_s, inspection.axis_end_s):
            axes.axvline(time, color=PALE, linewidth=0.6, zorder=0)
        if inspection.axis_end_s > inspection.end_s:
            axes.axvspan(inspection.end_s, inspection.axis_end_s, color=OUTSIDE, zorder=-1)
        axes.set_yscale("log" if track.log else "linear")
        axes.set_ylim(track.low, track.high)
    steps = np.repeat(np.clip(track.values, track.low, track.high), 2, axis=0)
    times = np.repeat(edges, 2)[1:-1]  # a step a frame, as wide as the frame
    if track.style == "wave":
        axes.fill_between(times, *steps.T, color=LINE, linewidth=0.6)  # a line where it is flat
    elif track.style == "area":
        axes.fill_between(times, steps, color=AREA, linewidth=0)
    if track.style in ("area", "line"):
        axes.plot(times, steps, color=LINE, linewidth=1.1, solid_capstyle="butt")
    axes.set_xlim(inspection.start_s, inspection.axis_end_s)


def track_png(track: Track, panel: Panel, inspection: Inspection) -> bytes:
    """A picture without anything around it: its left edge is `start_s`, its right edge `until_s`."""
    figure = Figure(figsize=(TRACK_WIDTH / PAGE_DPI, track.height / PAGE_DPI), dpi=TRACK_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    figure.set_facecolor(OUTSIDE if track.style in ("band", "image") else "white")
    draw_track(axes, track, panel, inspection)
    return to_png(figure, palette=True)


def inspection_figure(inspection: Inspection) -> bytes:
    """All panels in one figure, as PNG."""
    panels = [*inspection.sound, *inspection.experts]
    heights = [TITLE_IN + sum(t.height * FIGURE_SCALE + GAP_IN for t in p.tracks) + GAP_IN for p in panels]
    height = TOP_IN + sum(heights) + BOTTOM_IN
    with mpl.rc_context({"text.parse_math": False, "font.size": 8}):  # a dollar in an id is no formula
        figure = Figure(figsize=(FIGURE_WIDTH_IN, height), dpi=FIGURE_DPI)
        left = LEFT_IN / FIGURE_WIDTH_IN
        width = 1 - left - RIGHT_IN / FIGURE_WIDTH_IN
        draw_head(figure, inspection, height)
        y, drawn = height - TOP_IN, []
        for panel, tall in zip(panels, heights, strict=True):
            draw_panel_label(figure, panel, (y - TITLE_IN * 0.7) / height)
            at = y - TITLE_IN
            for track in panel.tracks:
                at -= track.height * FIGURE_SCALE
                axes = figure.add_axes((left, at / height, width, track.height * FIGURE_SCALE / height))
                draw_track(axes, track, panel, inspection)
                draw_scale(axes, track)
                drawn.append(axes)
                at -= GAP_IN
            y -= tall
        if drawn:
            drawn[-1].set_xticks(time_ticks(inspection.start_s, inspection.axis_end_s))
            drawn[-1].set_xlabel("seconds")
        return to_png(figure, palette=False)


def draw_head(figure: Figure, inspection: Inspection, height: float) -> None:
    u = inspection.utterance
    texts = [u.text, " → ".join(t for t in (u.prompt, u.response) if t), inspection.excerpt_note]
    title = f"{u.id} ({inspection.seconds:.2f} s)"
    figure.text(MARGIN, 1 - 0.22 / height, shorten(title, TEXT_LETTERS // 2), fontsize=11, fontweight="bold", color=INK)
    figure.text(MARGIN, 1 - 0.40 / height, shorten("  ·  ".join(filter(None, texts)), TEXT_LETTERS), color=INK)


def draw_panel_label(figure: Figure, panel: Panel, y: float) -> None:
    """The panel's name, what is to know of it, and what is wrong."""
    figure.text(MARGIN, y, shorten(panel.title, 2 * NAME_LETTERS), fontweight="bold", color=INK)
    spec = panel.spec
    facts = f"{spec.dim} × {spec.rate_hz:.5g} Hz, {spec.fingerprint}" if spec else ""
    description = panel.problem or "; ".join(filter(None, [facts, panel.description]))
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


def value_at_height(track: Track, fraction: float) -> float:
    """The value at a height in 0..1."""
    if track.log:
        return track.low * (track.high / track.low) ** fraction
    return track.low + (track.high - track.low) * fraction


def css_gradient(colour_map: str) -> str:
    """A colour map as a CSS gradient."""
    stops = [to_hex(c) for c in mpl.colormaps[colour_map](np.linspace(0, 1, 9))]
    return f"linear-gradient(90deg,{','.join(stops)})"
