"""Figures of the page: all measures of an expert against the floors, errors of pitch, classes and channels, corpora."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from coat.drawing.figures import COMPARED, INK, LINE, PALE, to_png
from coat.drawing.text import shorten
from coat.trainer.fidelity.measures.measure import Part
from coat.trainer.fidelity.measures.pitch import CENTS, ERROR_BINS
from coat.trainer.fidelity.results import FLOOR, MEAN, RUN, SUBJECTS, ExpertFidelity, Figure
from coat.trainer.fidelity.text import label_of

WIDTH, DPI = 10.0, 100  # inches, dots per inch
MARKS = {RUN: (LINE, "o"), FLOOR: (COMPARED, "s"), MEAN: ("#9ca3af", "D")}
LOWEST = -0.25  # figures below stand at the left edge, with an arrow
MOST_PARTS = 40  # bars of a figure; more channels are a curve
LETTERS = 34
Picture = tuple[str, bytes]  # what it shows, and a PNG


def pictures_of(expert: ExpertFidelity) -> list[Picture]:
    found = [measures_picture(expert)]
    if expert.errors:
        found.append(errors_picture(expert))
    shown = [part for part in expert.parts[RUN] if part.figures]
    if len(shown) > 1:
        found.append(parts_picture(expert, shown))
    if expert.groups:
        found.append(groups_picture(expert))
    return found


def measures_picture(expert: ExpertFidelity) -> Picture:
    rows = [(label_of(name), {s: row[name] for s, row in expert.figures.items()}) for name in expert.names]
    what = "All measures with 95 % intervals; the difference has a narrower one, of the same draws: see the table"
    return what, draw(0.5 + 0.32 * len(rows), lambda axes: dots(axes, rows))


def groups_picture(expert: ExpertFidelity) -> Picture:
    first = expert.names[0]
    rows = [
        (f"{shorten(g.name, LETTERS)} ({g.clips:,} clips)", {s: row[first] for s, row in g.figures.items()})
        for g in expert.groups
    ]
    return f"{label_of(first)} by corpus", draw(0.5 + 0.3 * len(rows), lambda axes: dots(axes, rows))


def dots(axes: Axes, rows: Sequence[tuple[str, dict[str, Figure]]]) -> None:
    """A line for each row, with a mark for each subject, on an axis that ends at 1."""
    subjects = [s for s in MARKS if any(s in by for _, by in rows)]
    for i, subject in enumerate(subjects):
        colour, mark = MARKS[subject]
        y = np.arange(len(rows)) + 0.22 * (i - (len(subjects) - 1) / 2)
        values = np.array([by[subject].value if subject in by else np.nan for _, by in rows])
        for at, (_, by) in zip(y, rows, strict=True):
            if subject != MEAN and subject in by and (interval := by[subject].interval):
                axes.plot(np.clip(interval, LOWEST, 1.0), [at, at], color=colour, lw=1.6)
        inside = values >= LOWEST
        axes.plot(values[inside], y[inside], mark, color=colour, ms=5, label=SUBJECTS[subject], zorder=3)
        axes.plot(np.full((values < LOWEST).sum(), LOWEST), y[values < LOWEST], "<", color=colour, ms=6)
        for value, at in zip(values[values < LOWEST], y[values < LOWEST], strict=True):
            axes.annotate(f"{value:.2f}", (LOWEST, at), (7, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for at, (_, by) in enumerate(rows):
        if not any(np.isfinite(figure.value) for figure in by.values()):
            axes.annotate("nothing to measure", (0, at), (7, 0), textcoords="offset points", va="center", fontsize=8)
    low = min((v for _, by in rows for f in by.values() for v in (f.value, *(f.interval or ()))), default=0.0)
    axes.set_xlim(LOWEST - 0.02 if low < -0.01 else -0.02, 1.02)
    axes.axvline(0, color=PALE, lw=1, zorder=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(subjects), frameon=False, fontsize=9)


def errors_picture(expert: ExpertFidelity) -> Picture:
    """Errors of f0 in voiced frames, on a logarithmic axis: octave errors are few, and a finding."""
    width = 2 * CENTS / (ERROR_BINS - 2)
    edges = -CENTS - width + width * np.arange(ERROR_BINS + 1)

    def paint(axes: Axes) -> None:
        for subject in (s for s in MARKS if s in expert.errors):
            counts = np.array(expert.errors[subject])
            shares = counts / max(counts.sum(), 1.0)
            axes.stairs(np.maximum(shares, 1e-6), edges, color=MARKS[subject][0], lw=1.5, label=SUBJECTS[subject])
        axes.axvspan(-50, 50, color=PALE, zorder=0)
        axes.set_yscale("log")
        axes.set_ylim(1e-4, 1.2)
        axes.set_xticks(range(-CENTS, CENTS + 1, 300))
        axes.set_xlabel("cents above the target (the outermost steps: all beyond an octave)")
        axes.set_ylabel("share of voiced frames")
        axes.legend(frameon=False, fontsize=9)

    return "Errors of f0 in voiced frames; grey: counted as right", draw(2.8, paint)


def parts_picture(expert: ExpertFidelity, shown: Sequence[Part]) -> Picture:
    """A bar for each class or channel, of the most frequent ones; of many channels a curve."""
    key = "auc" if "auc" in shown[0].figures else next(iter(shown[0].figures))
    is_channel = key == "r2"
    if is_channel and len(shown) > MOST_PARTS:
        return channel_curve(expert, key)
    order = list(shown) if is_channel else sorted(shown, key=lambda part: -part.frames)[:MOST_PARTS]
    names = [part.name for part in order]
    rows = [
        (
            shorten(part.name, LETTERS) + ("" if is_channel else f" ({part.frames:,.0f} frames)"),
            {s: Figure(value, None) for s, value in values_of(expert, part.name, key).items()},
        )
        for part in order
    ]
    rest = len(shown) - len(names)
    most = f"; the {len(names)} most frequent, --json has all" if rest else ""
    what = f"{label_of(key)} by {'channel' if is_channel else 'class'}{most}"
    return what, draw(0.5 + 0.26 * len(rows), lambda axes: dots(axes, rows))


def values_of(expert: ExpertFidelity, name: str, key: str) -> dict[str, float]:
    """By subject, of one class or channel."""
    found = {s: next((p for p in parts if p.name == name), None) for s, parts in expert.parts.items()}
    return {s: part.figures[key] for s, part in found.items() if part is not None and key in part.figures}


def channel_curve(expert: ExpertFidelity, key: str) -> Picture:
    def paint(axes: Axes) -> None:
        for subject in (s for s in MARKS if s in expert.parts):
            values = [part.figures.get(key, np.nan) for part in expert.parts[subject]]
            axes.plot(np.clip(values, LOWEST, 1.0), color=MARKS[subject][0], lw=1.4, label=SUBJECTS[subject])
        axes.set_ylim(LOWEST, 1.02)
        axes.set_xlabel("channel")
        axes.set_ylabel(label_of(key))
        axes.legend(frameon=False, fontsize=9)

    return f"{label_of(key)} by channel (below {LOWEST:g} not drawn)", draw(2.8, paint)


def draw(height: float, paint: Callable[[Axes], Any]) -> bytes:
    figure = Canvas(figsize=(WIDTH, height + 0.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    paint(axes)
    return to_png(figure, palette=True)
