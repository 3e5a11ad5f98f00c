"""Tracks to pictures, by matplotlib: each on its own for a page, or into the axes of a figure.

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

from coat.drawing.figures import AREA, COMPARED, LINE, PALE, to_png
from coat.drawing.panels import Panel, TimeAxis, Track

OUTSIDE = "#e7e9ee"  # behind the end of the sound, and where an image has no frame
TRACK_WIDTH, TRACK_DPI = 1000, 200  # pixels of the page, drawn twice as fine
PAGE_DPI = 100  # so many pixels of the page to an inch
TICKS = 10  # on the time axis, about


def time_ticks(start_s: float, end_s: float) -> list[float]:
    """Round times, some TICKS of them."""
    rough_step = (end_s - start_s) / TICKS
    power = 10.0 ** math.floor(math.log10(rough_step))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough_step * 0.999)
    first, last = math.ceil(start_s / step - 1e-6), math.floor(end_s / step + 1e-6)
    return [i * step for i in range(first, last + 1)]


def draw_track(axes: Axes, track: Track, panel: Panel, axis: TimeAxis) -> None:
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
        for time in time_ticks(axis.start_s, axis.until_s):
            axes.axvline(time, color=PALE, linewidth=0.6, zorder=0)
        if axis.until_s > axis.end_s:
            axes.axvspan(axis.end_s, axis.until_s, color=OUTSIDE, zorder=-1)
        axes.set_yscale("log" if track.log else "linear")
        axes.set_ylim(track.low, track.high)
    steps = np.repeat(np.clip(track.values, track.low, track.high), 2, axis=0)
    times = np.repeat(edges, 2)[1:-1]  # a step a frame, as wide as the frame
    if track.style == "wave":
        axes.fill_between(times, *steps.T, color=LINE, linewidth=0.6)  # a line where it is flat
    elif track.style == "area":
        axes.fill_between(times, steps, color=AREA, linewidth=0)
    if track.reference is not None:
        reference = np.repeat(np.clip(track.reference, track.low, track.high), 2)
        axes.plot(times, reference, color=COMPARED, linewidth=2.6, alpha=0.75, solid_capstyle="butt")
    if track.style in ("area", "line"):
        axes.plot(times, steps, color=LINE, linewidth=1.1, solid_capstyle="butt")
    axes.set_xlim(axis.start_s, axis.until_s)


def track_png(track: Track, panel: Panel, axis: TimeAxis) -> bytes:
    """A picture without anything around it: its left edge is `start_s`, its right edge `until_s`."""
    figure = Figure(figsize=(TRACK_WIDTH / PAGE_DPI, track.height / PAGE_DPI), dpi=TRACK_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    figure.set_facecolor(OUTSIDE if track.style in ("band", "image") else "white")
    draw_track(axes, track, panel, axis)
    return to_png(figure, palette=True)


def value_at_height(track: Track, fraction: float) -> float:
    """The value at a height in 0..1."""
    if track.log:
        return track.low * (track.high / track.low) ** fraction
    return track.low + (track.high - track.low) * fraction


def css_gradient(colour_map: str) -> str:
    """A colour map as a CSS gradient."""
    stops = [to_hex(c) for c in mpl.colormaps[colour_map](np.linspace(0, 1, 9))]
    return f"linear-gradient(90deg,{','.join(stops)})"
