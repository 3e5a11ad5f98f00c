"""Frames at a lower rate: each is the mean of the time that it stands for. N frames, M frames of the lower rate, D dim.

Frame i of a target is the value from `start_s + (i - 0.5) / rate_hz` to `start_s + (i + 0.5) / rate_hz`. Frames of the
lower rate lie side by side from the first of these times on; each is the mean over its span, frames that it holds in
part counting for that part. So rates need not divide (where they do, a mean is exactly that of its frame's centre; else
within an eighth of a source frame of it), and what moves faster is averaged out.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-9  # of a frame: what rounding makes of an edge that two frames share
VOICED = 0.5  # voicing from which a frame has an f0
LOG2_F0, VOICING = 0, 1  # channels of kind pitch


@dataclass(frozen=True)
class RateReduction:
    """From one time base to a lower one."""

    source_hz: float
    source_start_s: float
    rate_hz: float

    @property
    def step(self) -> float:
        """Source frames in a frame of the lower rate."""
        return self.source_hz / self.rate_hz

    @property
    def start_s(self) -> float:
        """Centre of frame 0 of the lower rate."""
        return self.source_start_s - 0.5 / self.source_hz + 0.5 / self.rate_hz

    def frames(self, source_frames: int) -> int:
        """With the last, which may stand for less than its span."""
        return math.ceil(source_frames / self.step - EPSILON)

    def edges(self, source_frames: int) -> NDArray[np.float64]:
        """Where frames of the lower rate begin and end, in source frames, `[M + 1]`; the last ends with the source."""
        return np.minimum(np.arange(self.frames(source_frames) + 1) * self.step, source_frames)

    def coverage(self, source_frames: int) -> NDArray[np.float64]:
        """Share of each frame's span that the source has, `[M]`: 1 but for the last."""
        return np.minimum(np.diff(self.edges(source_frames)) / self.step, 1.0)

    def downsample(self, frames_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """`[M, D]`. From sums up to each edge, so that time and memory are those of reading the frames."""
        edges = self.edges(len(frames_ND))
        sums_ND = np.concatenate([np.zeros((1, frames_ND.shape[1])), np.cumsum(frames_ND, axis=0, dtype=np.float64)])
        whole = np.minimum(edges.astype(np.int64), max(len(frames_ND) - 1, 0))
        at_edges_ED = sums_ND[whole]
        if len(frames_ND):
            at_edges_ED = at_edges_ED + (edges - whole)[:, None] * frames_ND[whole]
        return np.diff(at_edges_ED, axis=0) / np.diff(edges)[:, None]

    def downsample_pitch(self, frames_ND: NDArray[np.floating]) -> NDArray[np.float64]:
        """f0 is the mean over voiced frames; where there are none, over all (a guess, as it was)."""
        lowered_MD = self.downsample(frames_ND)
        voiced_N1 = (frames_ND[:, VOICING, None] >= VOICED).astype(np.float64)
        weight_M, f0_M = self.downsample(np.concatenate([voiced_N1, voiced_N1 * frames_ND[:, :1]], axis=1)).T
        some_M = weight_M > EPSILON
        lowered_MD[some_M, LOG2_F0] = f0_M[some_M] / weight_M[some_M]
        return lowered_MD

    def upsample(self, frames_MD: NDArray[np.floating], source_frames: int) -> NDArray[np.floating]:
        """Back at the source's rate, `[N, D]`: on the line between the centres of the frames around."""
        if not len(frames_MD):
            return np.zeros((source_frames, frames_MD.shape[1]), frames_MD.dtype)
        edges = self.edges(source_frames)
        centres = (edges[:-1] + edges[1:]) / 2
        times_N = np.arange(source_frames) + 0.5
        right = np.clip(np.searchsorted(centres, times_N), 1, max(len(centres) - 1, 1))
        left = right - 1
        right = np.minimum(right, len(centres) - 1)
        gap = np.maximum(centres[right] - centres[left], EPSILON)
        share_N = np.clip((times_N - centres[left]) / gap, 0.0, 1.0)[:, None]
        return frames_MD[left] * (1 - share_N) + frames_MD[right] * share_N
