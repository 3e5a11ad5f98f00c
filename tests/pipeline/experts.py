"""Small experts with known truth, for tests of the pipeline: five lines of model each."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.windows import Window

HOP = 160  # samples at 16 kHz: 100 frames per second


class Level(Expert):
    """Per 10 ms: mean, root mean square and peak."""

    card = Card(family="prosody", kind="scalars", what="level", source="tests", licence="none", dim=3, rate_hz=100.0)
    name = "level"
    takes = ("checkpoint",)  # some are told by it where to look
    batch_seconds = 20.0

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__.lower()

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = self.describe(dim=3, rate_hz=100.0, start_s=0.005, sample_rate=16000, min_samples=HOP)

    def load(self, device: str) -> None:
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [level(w) for w in waveforms]


def level(waveform_T: Waveform) -> Frames:
    hops = waveform_T[: len(waveform_T) // HOP * HOP].reshape(-1, HOP)
    return np.stack([hops.mean(1), np.sqrt((hops**2).mean(1)), np.abs(hops).max(1)], axis=1)


class States(Level):
    """32 hidden states a frame, most of them told by the level: what principal components are for."""

    card = replace(Level.card, family="speech", kind="representation", dim=32)

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = self.describe(dim=32, rate_hz=100.0, start_s=0.005, sample_rate=16000, min_samples=HOP)

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        mixing_3D = np.random.default_rng(0).standard_normal((3, 32))
        return [(np.tanh(5 * level(w) @ mixing_3D) + 1).astype(np.float32) for w in waveforms]


class Low(Level):
    """The same at 8 kHz: 20 ms a frame."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = self.describe(dim=3, rate_hz=50.0, start_s=0.01, sample_rate=8000, min_samples=HOP)


class Spoils(Level):
    """Writes into the samples that it is given."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        found = super().extract(waveforms)
        for w in waveforms:
            w[:] = 0.7
        return found


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


class Windowed(Level):
    """Hears 2 s at a time; a frame hears no more than its own 10 ms."""

    window_s, context_s = 2.0, 0.005


class ScarceWindows(Scarce):
    """Runs out of memory with more than two windows in a batch."""

    window_s, context_s = 2.0, 0.005


class PickyWindows(Picky):
    """Raises on a window that is louder than 0.9."""

    window_s, context_s = 2.0, 0.005


class Remembers(Windowed):
    """The running sum of the mean, from window to window."""

    context_s = 0.0

    def windows(self, samples: int) -> list[Window]:
        return [Window(i, min(i + 32000, samples), 0, None) for i in range(0, samples, 32000)]

    def stream(self, waveforms: Iterable[Waveform], batch_seconds: float | None = None) -> Iterator[Frames]:
        total = np.zeros(3, dtype=np.float32)
        for x in waveforms:
            sums = np.cumsum(np.concatenate([total[None], level(x)]), axis=0)[1:]
            total = sums[-1]
            yield sums

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [frames for x in waveforms for frames in self.stream([x])]
