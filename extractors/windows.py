"""Long audio in overlapping windows, of which the frames with enough context are kept.

T samples, N frames, D dim. Every window begins at a whole frame, so that joined frames lie exactly where
a single pass would have put them.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Number = TypeVar("Number", bound=np.generic)
Waveform = NDArray[np.float32]  # [T], mono, at the spec's sample rate
Frames = NDArray[np.floating[Any]]  # [N, D], float32 unless the caller asked for less


@dataclass(frozen=True, slots=True)
class Window:
    """Samples `start` to `stop` of the clip are heard; `keep` frames are kept, after `skip` that are not."""

    start: int
    stop: int
    skip: int
    keep: int | None  # None: all to the clip's end

    def kept(self, frames_ND: NDArray[Number]) -> NDArray[Number]:
        """The kept part of what the model gave. ValueError where it gave fewer frames than its rate says."""
        found = frames_ND[self.skip :][: self.keep]
        if len(found) < (self.keep or 1):
            seconds = f"samples {self.start} to {self.stop}"
            raise ValueError(
                f"{len(frames_ND)} frames of a window ({seconds}); expected {self.skip + (self.keep or 1)}"
            )
        return found


def plan_windows(samples: int, size: int, context: int, hop: Fraction, centre: Fraction) -> list[Window]:
    """Windows of at most `size` samples; a clip that fits is one window of its own length.

    Frame i is centred at sample `centre + i * hop`. A frame is kept where the window holds `context` samples
    on both sides of its centre, or the clip ends. The last window is moved back, to be full too; where it
    then overlaps more than needed, each keeps its half. Windows with too few frames to begin at whole samples
    begin at the sample nearest to a frame.
    """
    if samples <= size:
        return [Window(0, samples, 0, None)]
    grid = hop.denominator  # a window can begin at every so many frames: at whole samples
    before = max(0, math.ceil((context - centre) / hop))
    valid = math.floor((size - context - centre) / hop) + 1  # frames of a window that have their context behind them
    if grid > valid - before:
        grid = 1
    step = (valid - before) // grid * grid
    if step < 1:
        raise ValueError(f"windows of {size} samples have no frame with {context} samples on both sides")
    last = math.ceil((samples - size) / hop / grid) * grid
    firsts = [*range(0, last, step), last]
    cuts = [(a + valid + b + before) // 2 for a, b in itertools.pairwise(firsts)]
    return [
        Window(
            start=round(first * hop),
            stop=min(round(first * hop) + size, samples),
            skip=(cuts[i - 1] if i else 0) - first,
            keep=cuts[i] - (cuts[i - 1] if i else 0) if i < len(cuts) else None,
        )
        for i, first in enumerate(firsts)
    ]


def split_into_windows(pieces: Iterable[Waveform], plan: Sequence[Window]) -> Iterator[Waveform]:
    """The audio of each window, from a clip that comes piece by piece; holds a window and a piece. Reads to the end."""
    source = iter(pieces)
    held: list[Waveform] = []
    first = stop = 0  # samples that are held
    for window in plan:
        while stop < window.stop:
            held.append(next(source))
            stop += len(held[-1])
        held_T = held[0] if len(held) == 1 else np.concatenate(held)
        held_T, first = held_T[window.start - first :], window.start
        held = [held_T]
        yield held_T[: window.stop - window.start]
    for piece in source:
        assert not len(piece), "the clip is longer than its windows"


def padded_batches(items: Iterable[Item], key: Callable[[Item], int], largest: float) -> Iterator[list[Item]]:
    """Neighbours in order while items * longest stays within `largest`; one item may exceed it on its own."""
    group: list[Item] = []
    longest = 0
    for item in items:
        longest = max(longest, key(item))
        if group and longest * (len(group) + 1) > largest:
            yield group
            group, longest = [], key(item)
        group.append(item)
    if group:
        yield group


def kept_frames(frames: Iterable[NDArray[Number]], plan: Sequence[Window]) -> Iterator[NDArray[Number]]:
    """What is kept of the frames of each window. ValueError where they are too few."""
    return (window.kept(frames_ND) for frames_ND, window in zip(frames, plan, strict=True))


def pad_batch(waveforms: Sequence[Waveform]) -> tuple[Waveform, NDArray[np.int64]]:
    """`[B, T]`, zeros after each clip's end, and their lengths `[B]`."""
    lengths = np.array([len(x) for x in waveforms])
    padded_BT = np.zeros((len(waveforms), lengths.max()), dtype=np.float32)
    for row_T, x in zip(padded_BT, waveforms, strict=True):
        row_T[: len(x)] = x
    return padded_BT, lengths


def group_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of equal lengths together: what may share a batch where padding would change values."""
    equal: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        equal.setdefault(length, []).append(i)
    return list(equal.values())
