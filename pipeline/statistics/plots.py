"""Statistics as pictures, by matplotlib. D dim, B bins, C components."""

from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from coat.drawing.figures import AREA, INK, LINE, PALE, to_png
from coat.drawing.text import shorten
from coat.pipeline.statistics.statistics import QUANTILES, Statistics
from coat.pipeline.statistics.text import PCA_FROM_DIM, dimension_name, most_informative, percent

WIDTH_IN, DPI = 10.0, 180
COLUMNS, ROW_IN = 4, 1.45  # of small histograms
MAX_HISTOGRAMS = 24  # dimensions that have one each; of more, all values are in one
POOLED_BINS = 200
SMALL_BINS = 80  # of a small histogram, at most
SHARES = (0.9, 0.95, 0.99)  # of the variance, which the curve is marked at
NAME_LETTERS = 26


def statistics_figures(stats: Statistics) -> list[tuple[str, bytes]]:
    """What they show, and the PNGs."""
    figures: list[tuple[str, Callable[[], bytes]]] = []
    if stats.spec.dim <= MAX_HISTOGRAMS:
        figures.append(("Histogram of each dimension", lambda: dimension_histograms(stats)))
    else:
        figures.append(("Histogram of all values of all dimensions", lambda: pooled_histogram(stats)))
        figures.append(
            ("Where the values of each dimension lie, dimensions by their median", lambda: value_ranges(stats))
        )
    if stats.event_share_D is not None:
        figures.append(("Share of frames in which it is there", lambda: event_shares(stats, stats.event_share_D)))
    if stats.pca is not None and stats.spec.dim >= PCA_FROM_DIM:
        figures.append(("Variance that the first principal components hold", lambda: explained_variance(stats)))
    with mpl.rc_context({"text.parse_math": False, "font.size": 8}):  # a dollar in a channel's name is no formula
        return [(what, draw()) for what, draw in figures]


def new_figure(height_in: float, rows: int = 1, columns: int = 1) -> tuple[Figure, NDArray[np.object_]]:
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
    axes = np.asarray(figure.subplots(rows, columns, squeeze=False), object).ravel()
    for a in axes:
        remove_clutter(a)
    return figure, axes


def remove_clutter(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9ca3af")
    axes.tick_params(length=2, width=0.4, labelsize=7, colors=INK)


def dimension_histograms(stats: Statistics) -> bytes:
    rows = -(-stats.spec.dim // COLUMNS)
    figure, axes = new_figure(ROW_IN * rows + 0.1, rows, COLUMNS)
    width_D = stats.sums.histogram.width_D
    for d, a in enumerate(axes):
        if d >= stats.spec.dim:
            a.set_visible(False)
            continue
        centres_B, counts_B = filled_bins(stats, d)
        draw_bars(a, centres_B, counts_B, float(width_D[d]))
        a.set_title(shorten(dimension_name(stats, d), NAME_LETTERS), fontsize=8, color=INK)
        a.set_yticks([])
        a.locator_params(axis="x", nbins=5)
    return to_png(figure, palette=True)


def filled_bins(stats: Statistics, dimension: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Centres and counts from the first bin that holds something to the last."""
    counts_B = stats.sums.histogram.counts_DB[dimension]
    some = np.flatnonzero(counts_B)
    if not len(some):
        return np.zeros(0), np.zeros(0, np.int64)
    return stats.sums.histogram.bin_centres()[dimension, some[0] : some[-1] + 1], counts_B[some[0] : some[-1] + 1]


def draw_bars(axes: Axes, centres_B: NDArray[np.float64], counts_B: NDArray[np.int64], width: float) -> None:
    """So many neighbours put together that each bin can be seen."""
    if not len(centres_B):
        return
    bins_per_bar = -(-len(counts_B) // SMALL_BINS)
    drawn_B = np.add.reduceat(counts_B, np.arange(0, len(counts_B), bins_per_bar))
    edges = centres_B[0] - width / 2 + np.arange(len(drawn_B) + 1) * width * bins_per_bar
    axes.stairs(drawn_B, edges, fill=True, color=AREA)
    axes.stairs(drawn_B, edges, color=LINE, linewidth=0.8)
    axes.set_ylim(0, drawn_B.max() * 1.05)


def pooled_histogram(stats: Statistics) -> bytes:
    """On a logarithmic scale: of hidden states a few values are far out, and matter for int8."""
    figure, (axes,) = new_figure(2.6)
    low, high = stats.sums.low_D.min(), stats.sums.high_D.max()
    counts_B, edges = np.histogram(
        stats.sums.histogram.bin_centres(), POOLED_BINS, (low, high), weights=stats.sums.histogram.counts_DB
    )
    axes.stairs(counts_B, edges, fill=True, color=AREA)
    axes.stairs(counts_B, edges, color=LINE, linewidth=0.8)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.set_ylim(0.8, None)
    axes.set_xlabel("value")
    axes.set_ylabel("values")
    return to_png(figure, palette=True)


def value_ranges(stats: Statistics) -> bytes:
    figure, (axes,) = new_figure(2.8)
    order = np.argsort(np.nan_to_num(stats.quantiles_QD[QUANTILES.index(0.5)]), kind="stable")
    places = np.arange(stats.spec.dim)
    axes.fill_between(places, stats.sums.low_D[order], stats.sums.high_D[order], color=PALE, label="all", step="mid")
    for (low, high), colour in {(0.01, 0.99): AREA, (0.25, 0.75): LINE}.items():
        lower, upper = (stats.quantiles_QD[QUANTILES.index(q)][order] for q in (low, high))
        axes.fill_between(places, lower, upper, color=colour, label=f"{100 * (high - low):.0f} %", step="mid")
    axes.set_xlim(0, stats.spec.dim - 1)
    axes.set_xlabel("dimensions, by their median")
    axes.set_ylabel("value")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderpad=0, frameon=False, ncols=3, fontsize=7)
    return to_png(figure, palette=True)


def event_shares(stats: Statistics, event_share_D: NDArray[np.float64] | None) -> bytes:
    assert event_share_D is not None
    shown = most_informative(stats, MAX_HISTOGRAMS)
    shown = shown[np.argsort(-event_share_D[shown], kind="stable")]
    figure, (axes,) = new_figure(0.16 * len(shown) + 0.5)
    bars_drawn = axes.barh(np.arange(len(shown)), 100 * event_share_D[shown], color=AREA, edgecolor=LINE, linewidth=0.6)
    axes.bar_label(bars_drawn, [percent(float(event_share_D[d])) for d in shown], padding=3, fontsize=7, color=INK)
    axes.set_yticks(np.arange(len(shown)), [shorten(dimension_name(stats, d), NAME_LETTERS) for d in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, max(float(event_share_D.max()) * 115, 1e-3))
    axes.set_xlabel("% of frames")
    return to_png(figure, palette=True)


def explained_variance(stats: Statistics) -> bytes:
    assert stats.pca is not None
    figure, (axes,) = new_figure(2.8)
    curve_C = np.concatenate([[0.0], 100 * stats.pca.explained_C])
    axes.plot(np.arange(len(curve_C)), curve_C, color=LINE, linewidth=1.4)
    marked = {stats.pca.components_for(share): share for share in SHARES}  # the largest share that so many hold
    for at, share in marked.items():
        axes.plot([0, at, at], [100 * share, 100 * share, 0], color=INK, linewidth=0.5, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{share:.0%} in {at}", (at, 5), (-3, 0), textcoords="offset points", ha="right", fontsize=7, color=INK,
            rotation=90,
        )  # fmt: skip
    axes.set_xlim(0, stats.spec.dim)
    axes.set_ylim(0, 104)
    axes.set_xlabel("principal components")
    axes.set_ylabel("% of the variance")
    return to_png(figure, palette=True)
