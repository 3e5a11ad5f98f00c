"""What a target is: everything that decides its value, and the time base that its frames lie on.

N frames, D dim. Targets with different fingerprints never mix.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.manifests.errors import InputError

Family = Literal[
    "reconstruction", "speech", "events", "affect", "prosody", "pitch", "music", "speaker", "activity"
]  # fmt: skip
# What the numbers are; the trainer chooses its loss by it.
#   representation  hidden states: direction and (standardised) value matter
#   probabilities   each dimension is a probability of its own in 0..1
#   distribution    the probabilities of one choice: they sum to 1
#   pitch           log2 of f0 in Hz, voicing confidence 0..1, then scalars (see `channels`)
#   scalars         named measurements, each on a scale of its own
Kind = Literal["representation", "probabilities", "distribution", "pitch", "scalars"]
DTYPES = ("float16", "float32")


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """Description of a target set.

    Frame i is centred at `start_s + i / rate_hz` seconds from the start of its utterance.
    `weights` is the digest of the weights and model configuration that were loaded ("none" where the
    expert has none); `checkpoint` says where they came from, and is the one field that does not
    count for the fingerprint: the same weights in another folder give the same targets.
    """

    expert: str
    version: int  # of the expert's code: raised when its values change
    family: Family
    kind: Kind
    dim: int
    rate_hz: float  # frames per second
    start_s: float  # centre of frame 0
    sample_rate: int  # Hz of the audio that the expert hears
    min_samples: int  # shorter utterances are skipped
    weights: str = "none"
    checkpoint: str = "none"
    layer: str = "last"
    dtype: str = "float16"  # as stored
    precision: str = "float32"  # as computed
    channels: tuple[str, ...] = ()  # a name per dimension, where they have names
    settings: Mapping[str, Any] = field(default_factory=dict)  # preprocessing, JSON values

    def __post_init__(self) -> None:
        if self.family not in get_args(Family) or self.kind not in get_args(Kind):
            raise InputError(f"{self.expert}: unknown family {self.family!r} or kind {self.kind!r}")
        if self.dtype not in DTYPES:
            raise InputError(f"{self.expert}: dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.dim < 1 or not (self.rate_hz > 0 and math.isfinite(self.rate_hz)) or self.sample_rate < 1:
            raise InputError(f"{self.expert}: dim, rate_hz and sample_rate must be above zero")
        if not math.isfinite(self.start_s):
            raise InputError(f"{self.expert}: start_s {self.start_s} is not a time")
        for name in ("rate_hz", "start_s"):  # 50 and 50.0 are one rate, but two texts: the fingerprint is of text
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.channels and len(self.channels) != self.dim:
            raise InputError(f"{self.expert}: {len(self.channels)} channel names for {self.dim} dimensions")

    @property
    def fingerprint(self) -> str:
        """16 hex digits, equal exactly where everything that decides a target's value is equal."""
        identity = {k: v for k, v in self.to_dict().items() if k != "checkpoint"}
        return xxhash.xxh3_64_hexdigest(json.dumps(identity, sort_keys=True).encode())

    def times(self, frames: int) -> NDArray[np.float64]:
        """Centres of the first N frames in seconds, `[N]`."""
        return self.start_s + np.arange(frames) / self.rate_hz

    def bytes_per_second(self) -> float:
        """Of audio, as stored."""
        return self.rate_hz * self.dim * np.dtype(self.dtype).itemsize

    def with_dtype(self, dtype: str) -> "TargetSpec":
        return replace(self, dtype=dtype)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "channels": list(self.channels), "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "target spec") -> "TargetSpec":
        """InputError names `source` where the fields are not those of a spec."""
        try:
            return cls(**{**data, "channels": tuple(data["channels"])})
        except (TypeError, KeyError) as e:
            raise InputError(f"{source}: not a target spec ({e})") from e
