"""Decoded audio: a clip, what a header says, and the error where there is none. T samples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
import xxhash
from numpy.typing import NDArray


class AudioError(Exception):
    """A span that cannot be decoded. `reason` is one of the words below; the message is one line.

    missing, empty, unreadable, truncated, not_finite, span, channels
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # both arguments cross process borders
        return type(self), (self.reason, str(self))


@dataclass(frozen=True)
class AudioInfo:
    """Of a file as a whole, from its header."""

    seconds: float
    rate: int  # Hz
    channels: int
    format: str


@dataclass(frozen=True)
class Clip:
    """A decoded span: `samples_T` float32, mono, at the file's own rate."""

    samples_T: NDArray[np.float32]
    rate: int  # Hz

    @property
    def seconds(self) -> float:
        return len(self.samples_T) / self.rate

    @property
    def digest(self) -> str:
        """16 hex digits of the sound itself: a rewritten or moved file with the same samples keeps it."""
        return clip_digest(xxhash.xxh3_64(self.samples_T.data), self.rate)

    def at(self, rate: int) -> NDArray[np.float32]:
        """Resampled (soxr HQ), float32 `[resampled_length(T, self.rate, rate)]`."""
        if rate == self.rate:
            return self.samples_T
        return soxr.resample(self.samples_T, self.rate, rate).astype(np.float32, copy=False)


def clip_digest(samples: xxhash.xxh3_64, rate: int) -> str:
    samples.update(str(rate).encode())
    return samples.hexdigest()


def resampled_length(samples: int, rate: int, wanted: int) -> int:
    """What soxr makes of so many samples: rounded to the nearest."""
    return samples if rate == wanted else int(samples * wanted / rate + 0.5)
