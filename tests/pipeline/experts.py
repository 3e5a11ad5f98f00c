"""Small experts with known truth, for tests of the pipeline: five lines of model each."""

import os
import time
from collections.abc import Sequence

import numpy as np

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.manifests.spec import TargetSpec

HOP = 160  # samples at 16 kHz: 100 frames per second


class Level(Expert):
    """Per 10 ms: mean, root mean square and peak."""

    card = Card(family="prosody", kind="scalars", what="level", source="tests", licence="none", dim=3, rate_hz=100.0)
    batch_seconds = 20.0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = TargetSpec(
            expert=type(self).__name__.lower(),
            version=1,
            family="prosody",
            kind="scalars",
            dim=3,
            rate_hz=100.0,
            start_s=0.005,
            sample_rate=16000,
            min_samples=HOP,
            dtype=options.dtype,
        )

    def load(self, device: str) -> None:
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [level(w) for w in waveforms]


def level(waveform_T: Waveform) -> Frames:
    hops = waveform_T[: len(waveform_T) // HOP * HOP].reshape(-1, HOP)
    return np.stack([hops.mean(1), np.sqrt((hops**2).mean(1)), np.abs(hops).max(1)], axis=1)


class Slow(Level):
    """Takes a while, so that a test can kill it in the middle."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        time.sleep(0.08)
        return super().extract(waveforms)


class Poisoned(Level):
    """Takes its process with it where a clip peaks above 0.99."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if any(np.abs(w).max() > 0.99 for w in waveforms):
            os._exit(11)
        return super().extract(waveforms)


class Scarce(Level):
    """Runs out of memory with more than two clips in a batch."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if len(waveforms) > 2:
            raise MemoryError("more than two clips")
        return super().extract(waveforms)


class Picky(Level):
    """Raises on a clip that is louder than 0.9; gives NaN on one longer than 3 s."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if any(np.abs(w).max() > 0.9 for w in waveforms):
            raise ValueError("too loud")
        return [np.full_like(level(w), np.nan) if len(w) > 3 * 16000 else level(w) for w in waveforms]


class Broken(Level):
    """Raises on everything."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        raise RuntimeError("no such kernel")


class Unloadable(Level):
    """Its weights do not load."""

    def load(self, device: str) -> None:
        raise RuntimeError("no GPU driver here")


class Misshapen(Level):
    """Gives a dimension less than its spec says."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [level(w)[:, :2] for w in waveforms]
