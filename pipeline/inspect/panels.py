"""What is drawn of one utterance, as data: panels of tracks, all of them on the time of the utterance.

A track is a strip: a curve, a class, an image. Frame i of a panel is centred at `first_s + i / rate_hz` and is
`1 / rate_hz` wide; it is drawn so wide, and what is said of it (`reads`) is said of all that width.

N frames, R rows of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.drawing.text import short

Floats = NDArray[np.float32]
Style = Literal["line", "area", "band", "image", "wave"]
Read = float | str | None  # what is said of a frame; None: nothing


@dataclass(frozen=True, kw_only=True)
class Track:
    name: str
    style: Style
    # [N]; image: [N, R], the lowest row first; wave: [N, 2], lowest and highest. A curve is broken where it is NaN.
    values: Floats
    low: float  # at the lower edge, or of the first colour
    high: float
    reads: Sequence[Read]  # [N]
    height: int  # pixels of the page
    unit: str = ""
    log: bool = False
    colours: str = "Blues"  # colour map of a band or an image
    ticks: tuple[tuple[float, str], ...] = ()  # height in 0..1, and what stands there


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    what: str = ""  # is shown, in a line
    reading: str = ""  # of the values: what is said of a frame, where that needs words
    first_s: float = 0.0
    rate_hz: float = 1.0
    tracks: tuple[Track, ...] = ()
    problem: str = ""  # why there is nothing, or what is wrong with it
    spec: TargetSpec | None = None

    @property
    def frames(self) -> int:
        return len(self.tracks[0].values) if self.tracks else 0

    def edges(self) -> NDArray[np.float64]:
        """Seconds of the borders between frames, `[N + 1]`."""
        return self.first_s + (np.arange(self.frames + 1, dtype=np.float64) - 0.5) / self.rate_hz


def ticks_at(low: float, high: float, values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    return tuple(((value - low) / (high - low), short(value)) for value in values)
