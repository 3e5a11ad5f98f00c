"""Where long utterances are cut."""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from coat.pipeline.store.rows import Row


def cut_grid(rates: Sequence[float], limit_s: float) -> float:
    """Seconds at whose multiples every expert's frames begin anew, so that a piece's frames lie as those of a whole.

    The least common multiple of the frames' periods, for rates 50 and 62.5 Hz 0.08 s. Where that is longer than a
    piece may be: milliseconds, and frames are then right to half a frame.
    """
    periods = [1 / Fraction(hz).limit_denominator(10_000) for hz in rates]
    grid = reduce(lcm, periods, Fraction(1, 1000))
    return float(grid) if grid <= limit_s else 0.001


def lcm(a: Fraction, b: Fraction) -> Fraction:
    return Fraction(math.lcm(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator)


def pieces(
    seconds: NDArray[np.float64], limit_s: float | None, grid_s: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each utterance: its place, and start and seconds of its pieces (NaN: whole), which are about equally long."""
    if limit_s is None:
        return np.arange(len(seconds)), np.zeros(len(seconds)), np.full(len(seconds), np.nan)
    longest = max(math.floor(limit_s / grid_s + 1e-9), 1) * grid_s
    even = np.ceil(seconds / np.maximum(np.ceil(seconds / longest), 1) / grid_s - 1e-9) * grid_s
    step = np.minimum(even, longest)
    cut = seconds > limit_s
    counts = np.where(cut, np.ceil(seconds / np.maximum(step, grid_s) - 1e-9), 1).astype(np.int64)
    of = np.repeat(np.arange(len(seconds)), counts)
    number = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = np.round(number * step[of], 6)
    stop = np.where(number + 1 < counts[of], np.round((number + 1) * step[of], 6), seconds[of])
    length = np.where(cut[of], np.round(stop - start, 6), np.nan)
    return of, np.where(cut[of], start, 0.0), length


END_SLACK_S = 1e-4  # durations are rounded to microseconds; no frame is as short


def span(row: Row, rate_hz: float, start: float, seconds: float | None) -> tuple[int, int]:
    """Frames of a piece: cut at the nearest frame, so that each frame of an utterance is in one piece."""
    if seconds is None:
        return 0, row.frames
    first = min(nearest(start, rate_hz), row.frames)
    is_last = start + seconds > row.seconds - END_SLACK_S
    return first, row.frames if is_last else max(first, min(nearest(start + seconds, rate_hz), row.frames))


def nearest(time_s: float, rate_hz: float) -> int:
    """Equal for the end of a piece and the start of the next, which are the same time up to rounding."""
    return math.floor(round(time_s, 6) * rate_hz + 0.5)
