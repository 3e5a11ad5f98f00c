"""What every check uses: how it says that it failed, and what it measures."""

import numpy as np

from coat.extractors.expert import Expert
from coat.extractors.windows import Frames, Waveform

BATCH_TOLERANCE = 1e-4  # of the largest value of a clip


class CheckFailed(Exception):
    """The expert does not hold what it must: in words, with numbers."""


class NotApplicable(Exception):
    """The check says nothing about this expert, and why."""


def require(held: bool | np.bool_, otherwise: str) -> None:
    if not held:
        raise CheckFailed(otherwise)


def long_enough(expert: Expert) -> float:
    """Seconds in which frames can be counted and placed."""
    return max(2.0, 40 / expert.spec.rate_hz)


def seconds_of(expert: Expert, x: Waveform) -> float:
    return len(x) / expert.spec.sample_rate


def require_covered(expert: Expert, x: Waveform, frames: Frames) -> None:
    spec = expert.spec
    require(len(frames) > 0, f"no frames of {seconds_of(expert, x):g} s")
    times, duration = spec.times(len(frames)), seconds_of(expert, x)
    require(times[-1] <= duration + 0.5 / spec.rate_hz, f"a frame is centred at {times[-1]:.4f} s of {duration:.4f} s")
    left = duration - times[-1]
    allowed = spec.start_s + 2 / spec.rate_hz
    require(left <= allowed, f"frames end {left:.4f} s before the clip; {allowed:.4f} s are allowed")
