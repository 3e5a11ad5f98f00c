"""Where long utterances are cut into pieces, and which frames of a target a piece has.

A piece begins and ends where frames of all experts do, so that its targets are those of the whole utterance, cut.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from coat.pipeline.store.rows import Row

END_SLACK_S = 1e-4  # durations are rounded to microseconds; no frame is as short


def piece_grid_s(rates: Sequence[float], limit_s: float) -> float:
    """Seconds at whose multiples every expert's frames begin anew, so that a piece's frames lie as those of a whole.

    The least common multiple of the frames' periods, for rates 50 and 62.5 Hz 0.08 s. Where that is longer than a
    piece may be: milliseconds, and frames are then right to half a frame.
    """
    periods = [1 / Fraction(hz).limit_denominator(10_000) for hz in rates]
    grid = reduce(fraction_lcm, periods, Fraction(1, 1000))
    return float(grid) if grid <= limit_s else 0.001


def fraction_lcm(a: Fraction, b: Fraction) -> Fraction:
    return Fraction(math.lcm(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator)


def cut_into_pieces(
    seconds: NDArray[np.float64], limit_s: float | None, grid_s: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each piece: the number of its utterance, its start, and its seconds (NaN: the whole utterance).

    The pieces of an utterance are about equally long; the last one may exceed the limit by END_SLACK_S.
    """
    if limit_s is None:
        return np.arange(len(seconds)), np.zeros(len(seconds)), np.full(len(seconds), np.nan)
    longest = max(math.floor(limit_s / grid_s + 1e-9), 1) * grid_s
    shorter = seconds - END_SLACK_S  # what is left over by less than that is no piece of its own
    even = np.ceil(seconds / np.maximum(np.ceil(shorter / longest), 1) / grid_s - 1e-9) * grid_s
    step = np.minimum(even, longest)
    is_cut = shorter > limit_s
    counts = np.where(is_cut, np.ceil(shorter / np.maximum(step, grid_s) - 1e-9), 1).astype(np.int64)
    utterance = np.repeat(np.arange(len(seconds)), counts)
    number = np.arange(len(utterance)) - np.repeat(np.cumsum(counts) - counts, counts)  # of the piece in its utterance
    start = np.round(number * step[utterance], 6)
    is_last = number + 1 == counts[utterance]
    stop = np.where(is_last, seconds[utterance], np.round((number + 1) * step[utterance], 6))
    length = np.where(is_cut[utterance], np.round(stop - start, 6), np.nan)
    return utterance, np.where(is_cut[utterance], start, 0.0), length


def piece_frames(row: Row, rate_hz: float, start: float, seconds: float | None) -> tuple[int, int]:
    """First frame of a piece, and the one after its last. Cut at the nearest frame: each frame is in one piece."""
    if seconds is None:
        return 0, row.frames
    first = min(nearest_index(start, rate_hz), row.frames)
    is_last = start + seconds > row.seconds - END_SLACK_S
    return first, row.frames if is_last else max(first, min(nearest_index(start + seconds, rate_hz), row.frames))


def nearest_index(time_s: float, rate_hz: float) -> int:
    """The same for the end of a piece and the start of the next, which are the same time up to rounding."""
    return math.floor(round(time_s, 6) * rate_hz + 0.5)
