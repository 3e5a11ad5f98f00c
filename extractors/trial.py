"""How the conformance suite tries an expert."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coat.extractors.windows import Frames


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How the conformance suite tries an expert: what an event does to its frames (extractors/conformance/)."""

    frames_off: float = 0.75  # by which an event may seem to lie elsewhere
    burst_s: float = 0.02  # how long a burst of noise must be to be heard
    quiet: float = 1e-3  # level of the noise around an event
    loud: float = 0.5  # ... and in it. Experts that normalise a clip by its level want the two near each other
    tonal: bool = False  # a burst is of a tone: for trackers of pitch, to which one noise is as good as another
    causal: bool = False  # a frame hears the past alone: an event shows first where it begins, and for a while
    # What windows may change, of the largest value of a channel. None: a single pass hears more, so it gives others.
    whole: float | None = None
    view: Callable[[Frames], Frames] = np.asarray  # the channels, and the scale, in which an event shows


def logit(probabilities: Frames) -> Frames:
    """A scale on which a probability near 0 can be seen to move."""
    p = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))
