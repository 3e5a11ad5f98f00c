"""Heat maps of probes, layers x positions, all on one scale from 0 to 1."""

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from coat.analysis.probing.results import Probes
from coat.analysis.probing.scores import Score
from coat.drawing.figures import INK, to_png
from coat.drawing.text import shorten

DPI = 150
CELL_IN, MOST_IN = 0.46, 13.0  # width of a layer, of all of it
ROW_IN, TITLE_IN = 0.34, 0.62
WRITTEN = 34  # columns of a map up to which its figures are written into it
NAME_LETTERS = 60
SCALE, COLOURS = Normalize(0, 1), "cividis"
Value = Callable[[Score], float | None]
DARK = 0.55  # below it a figure is written in white


def heat_map(probes: Probes, target: str) -> bytes:
    """Score and selectivity of each subject, side by side: a row a position, a column a layer."""
    of_target = [score for score in probes.scores if score.target == target]
    layers = sorted({score.layer for score in of_target})
    subjects = sorted({score.subject for score in of_target})
    places = [place for place in probes.settings.places if any(s.place == place for s in of_target)]
    width = min(MOST_IN, 2 * (1.1 + max(4, len(layers)) * CELL_IN))
    height = len(subjects) * (TITLE_IN + len(places) * ROW_IN) + 0.5
    with mpl.rc_context({"text.parse_math": False, "font.size": 8}):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        axes = np.asarray(figure.subplots(len(subjects), 2, squeeze=False, sharex=True, sharey=True), object)
        for row, subject in enumerate(subjects):
            own = [score for score in of_target if score.subject == subject]
            name = shorten(probes.subjects[subject].name, NAME_LETTERS)
            draw_map(axes[row, 0], own, layers, places, name, lambda s: s.score.value)
            draw_map(axes[row, 1], own, layers, places, "selectivity", lambda s: s.selectivity.value)
        for a in axes[-1]:
            a.set_xlabel("layer")
        bar = figure.colorbar(
            ScalarMappable(SCALE, COLOURS), ax=list(axes.ravel()), fraction=0.03, pad=0.01, extend="min"
        )
        bar.ax.tick_params(labelsize=7, length=2, colors=INK)
        return to_png(figure, palette=False)


def draw_map(
    axes: Axes, scores: Sequence[Score], layers: list[int], places: list[str], title: str, value: Value
) -> None:
    found = np.full((len(places), len(layers)), np.nan)
    for score in scores:
        seen = value(score)
        found[places.index(score.place), layers.index(score.layer)] = np.nan if seen is None else seen
    axes.set_facecolor("#ffffff")
    axes.imshow(found, norm=SCALE, cmap=COLOURS, aspect="auto", interpolation="nearest")
    axes.set_title(title, fontsize=8, color=INK, loc="left")
    step = max(1, len(layers) // 16)
    axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_yticks(range(len(places)), places)
    axes.tick_params(length=2, width=0.4, labelsize=7, colors=INK)
    axes.spines[:].set_visible(False)
    if len(layers) <= WRITTEN:
        for (y, x), seen in np.ndenumerate(found):
            if np.isfinite(seen):
                text = f"{seen:.2f}"
                text = text.replace("0.", ".", 1) if abs(seen) < 0.995 else text[:-1]
                colour = "white" if seen < DARK else INK
                axes.text(x, y, text, ha="center", va="center", fontsize=6, color=colour)
