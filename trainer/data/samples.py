"""A sample as its tar holds it, and decoded.

S samples of audio, N frames, D dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests import InputError


class BadSample(InputError):
    """One sample that cannot be used. `reason` is a word that is counted; the message is one line."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Place:
    """Where a sample comes in the order of the training."""

    data_set: str  # name of its set
    epoch: int  # of the set
    number: int  # of the sample in the set, in the order of the index


@dataclass(frozen=True)
class RawSample:
    """A sample as the tar holds it."""

    shard: str
    key: str
    members: Mapping[str, bytes]  # by suffix: flac, json, <expert>.npy
    lost: str = ""  # why the tar does not give it; then it has no members
    place: Place | None = None  # None where it was not read for training

    def __str__(self) -> str:
        return f"{self.shard}:{self.key}"

    @property
    def bytes(self) -> int:
        return sum(map(len, self.members.values()))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A decoded sample. A target that its expert did not give is absent from `targets`."""

    id: str
    key: str
    samples_S: NDArray[np.float32]  # mono
    sample_rate: int  # Hz
    text: str | None
    prompt: str | None
    response: str | None
    choices: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()  # prompts and answers before the prompt
    text_only: bool = False  # no audio, by intent: `samples_S` is empty
    targets: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)  # by expert, [N, D] as stored
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return len(self.samples_S) / self.sample_rate
