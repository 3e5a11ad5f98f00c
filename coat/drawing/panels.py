"""What is drawn of one utterance, as data: panels of tracks, all of them on the time of the utterance.

A track is a strip: a curve, a class, an image. Frame i of a panel is centred at `first_s + i / rate_hz` and is
`1 / rate_hz` wide; it is drawn so wide, and what is said of it (`readouts`) is said of all that width.

N frames, R rows of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coat.drawing.text import short_number
from coat.manifests.targets.spec import TargetSpec

Floats = NDArray[np.float32]
Style = Literal["line", "area", "band", "image", "wave"]
Readout = float | str | None  # what is said of a frame; None: nothing


@dataclass(frozen=True)
class TimeAxis:
    """The seconds that all panels of a page or figure span, from the left edge to the right one."""

    start_s: float
    end_s: float  # where the sound ends
    until_s: float  # where the axis ends: later, where frames are centred behind the sound

    def percent(self, time_s: float) -> float:
        """Of the way from the left edge to the right one."""
        return 100 * (time_s - self.start_s) / (self.until_s - self.start_s)


@dataclass(frozen=True, kw_only=True)
class Track:
    """One strip of a panel."""

    name: str
    style: Style
    # [N]; image: [N, R], the lowest row first; wave: [N, 2], lowest and highest. A curve is broken where it is NaN.
    values: Floats
    low: float  # at the lower edge, or of the first colour
    high: float
    readouts: Sequence[Readout]  # [N]
    height: int  # pixels of the page
    unit: str = ""
    log: bool = False
    colour_map: str = "Blues"  # colour map of a band or an image
    ticks: tuple[tuple[float, str], ...] = ()  # height in 0..1, and what stands there
    reference: Floats | None = None  # [N]; of a line: what it is compared with, drawn in another colour


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The tracks of one sound or target."""

    title: str
    description: str = ""  # one line
    value_meaning: str = ""  # what the readouts are, where that needs words
    first_s: float = 0.0
    rate_hz: float = 1.0
    tracks: tuple[Track, ...] = ()
    problem: str = ""  # why there is nothing, or what is wrong with it
    spec: TargetSpec | None = None
    measured: str = ""  # what was measured of it, in a few words

    @property
    def frames(self) -> int:
        return len(self.tracks[0].values) if self.tracks else 0

    def edges(self) -> NDArray[np.float64]:
        """Seconds of the borders between frames, `[N + 1]`."""
        return self.first_s + (np.arange(self.frames + 1, dtype=np.float64) - 0.5) / self.rate_hz


def ticks_at(low: float, high: float, values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """Heights and labels of values on a linear scale."""
    return tuple(((value - low) / (high - low), short_number(value)) for value in values)


def axis_of(start_s: float, end_s: float, panels: Sequence[Panel]) -> TimeAxis:
    """To the end of the sound, or of the last frame that is centred behind it."""
    last = [float(p.edges()[-1]) for p in panels if p.frames and p.edges()[-2:].mean() > end_s]
    return TimeAxis(start_s, end_s, max([end_s, *last]))
