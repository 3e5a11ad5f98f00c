"""Long audio in overlapping windows, of which only the central frames are kept.

T samples, N frames, D dim. All positions are whole frames, so that stitched frames lie exactly where a
single pass would have put them: a window that begins at frame f is fed the samples from f * hop.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from coat.extractors.expert import Frames, Waveform

Item = TypeVar("Item")


@dataclass(frozen=True)
class Window:
    """Frames `first` to `stop` of the clip are computed, of which `keep_first` to `keep_stop` are kept."""

    first: int
    stop: int
    keep_first: int
    keep_stop: int

    def keep(self, frames_ND: Frames) -> Frames:
        """The kept part of what the model gave for this window; it may give more frames than asked."""
        return frames_ND[self.keep_first - self.first : self.keep_stop - self.first]


def windows(frames: int, size: int, overlap: int) -> list[Window]:
    """Windows of `size` frames that cover a clip of `frames`; a clip that fits is one window of its own length.

    Every window of a longer clip is full: the last one is moved back to end with the clip. Where two
    windows overlap, each keeps its half, so a kept frame has at least overlap // 2 frames of context.
    """
    assert size > overlap >= 0, (size, overlap)
    if frames <= size:
        return [Window(0, frames, 0, frames)]
    firsts = [*range(0, frames - size, size - overlap), frames - size]
    cuts = [0, *((a + size + b) // 2 for a, b in itertools.pairwise(firsts)), frames]
    return [Window(f, f + size, cuts[i], cuts[i + 1]) for i, f in enumerate(firsts)]


def groups(items: Iterable[Item], key: Callable[[Item], int], largest: float) -> Iterator[list[Item]]:
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


def pad(heard: Sequence[Waveform]) -> tuple[Waveform, NDArray[np.int64]]:
    """`[B, T]`, zeros after each clip's end, and their lengths `[B]`."""
    lengths = np.array([len(x) for x in heard])
    padded_BT = np.zeros((len(heard), lengths.max()), dtype=np.float32)
    for row_T, x in zip(padded_BT, heard, strict=True):
        row_T[: len(x)] = x
    return padded_BT, lengths


def extract_windows(
    waveforms: Sequence[Waveform],
    plan: Callable[[int], list[Window]],
    cut: Callable[[Waveform, Window], Waveform],
    forward: Callable[[list[Waveform]], Iterable[Frames]],
    budget: float,
) -> list[Frames]:
    """Plan the windows of every clip, run them in groups of at most `budget` padded samples, and stitch.

    `plan` takes a clip's samples, `cut` gives a window's audio, `forward` the frames of several windows.
    """
    jobs = [(i, window, cut(x, window)) for i, x in enumerate(waveforms) for window in plan(len(x))]
    parts: list[list[Frames]] = [[] for _ in waveforms]
    for group in groups(jobs, lambda job: len(job[2]), budget):
        for (i, window, _), frames_ND in zip(group, forward([samples for _, _, samples in group]), strict=True):
            parts[i].append(window.keep(frames_ND))
    return [np.ascontiguousarray(np.concatenate(part), dtype=np.float32) for part in parts]
