"""The Expert protocol: what a frozen audio model must give to be extracted.

T samples, N frames, D dim. An expert owns its model and nothing else: decoding, resampling, batching,
retries and writing are the worker's.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from coat.manifests.errors import InputError
from coat.manifests.spec import Family, Kind, TargetSpec

Waveform = NDArray[np.float32]  # [T], mono, at the spec's sample rate
Frames = NDArray[np.float32]  # [N, D]
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What `coat experts` shows of an expert without loading it."""

    family: Family
    kind: Kind
    what: str  # one frame, in a few words
    source: str  # paper or project
    licence: str  # of the weights
    dim: int | None = None  # None: as the checkpoint has it
    rate_hz: float | None = None
    checkpoint: str | None = "none"  # default; None: the user must name one
    extra: str | None = None  # of coat-audio, that installs what it needs
    requires: tuple[str, ...] = ()  # modules that must be installed


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may choose of an expert. All of it ends in the spec."""

    checkpoint: str | None = None  # hub id (`org/name` or `org/name@revision`), folder or file
    layer: str | None = None
    dtype: str = "float16"  # as stored
    precision: str = "float32"  # as computed: float32, bfloat16, float16

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"--precision {self.precision}: expected one of {', '.join(PRECISIONS)}")

    def refuse(self, expert: str, *names: str) -> None:
        """InputError where an option was given that the expert has no use for."""
        for name in names:
            if getattr(self, name) != getattr(Options(), name):
                raise InputError(f"--expert {expert}: takes no --{name} (got {getattr(self, name)})")


class Expert(ABC):
    """A frozen model that gives one vector per frame.

    Making one is cheap: it reads configurations and digests weights, so that `spec` is known (and a
    user's mistake found: InputError) before any work is scheduled. `load` puts the model on a device.
    """

    card: ClassVar[Card]
    spec: TargetSpec
    # Padded audio per forward pass, in seconds: what a batch is cut by. Halved when memory runs out.
    batch_seconds: float = 120.0
    # Whether the clips of a batch are padded to the longest; False: they are heard one by one, or with their equals.
    pads: bool = True

    def __init__(self, options: Options) -> None:
        self.options = options

    @abstractmethod
    def load(self, device: str) -> None:
        """Put the model on `device` ("cpu", "cuda:0"), in eval mode, without gradients."""

    @abstractmethod
    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        """One `[N, D]` float32 array per waveform, for any number and any lengths >= `min_samples`.

        Frame i must be centred at `spec.times(N)[i]`, and must not depend on the other waveforms.
        """

    def padded_samples(self, samples: int) -> int:
        """Samples that a clip of this length costs in a batch on its own; fixed-window models say more."""
        return samples
