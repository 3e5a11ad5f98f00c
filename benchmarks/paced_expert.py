"""An expert that takes as long as a GPU would: what `benchmarks.feeding` measures the rest of a worker with."""

import math
import time
from collections.abc import Sequence

import numpy as np

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial

DIM, RATE_HZ, SAMPLE_RATE = 1280, 50.0, 16000  # of Whisper large's encoder
HOP = round(SAMPLE_RATE / RATE_HZ)
BATCHES: list[tuple[float, float, float]] = []  # of this process: when each was given and had, and its seconds of audio


class PacedExpert(Expert):
    """Keeps a device of its own busy for a clip's seconds / speed (`--layer SPEED`, times real time).

    The frames are views of one array, because a GPU copies them into pinned memory without a CPU.
    """

    name = "paced"
    card = Card(
        family="speech", kind="representation", what="random values", source="coat's benchmarks", licence="Apache-2.0"
    )
    takes = ("layer",)
    trial = Trial()

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.speed = float(options.layer or 1000)
        self.batch_seconds = min(240.0, 0.2 * self.speed)
        self.spec = self.describe(
            dim=DIM, rate_hz=RATE_HZ, start_s=0.0, sample_rate=SAMPLE_RATE, min_samples=HOP, layer=options.layer
        )

    @property
    def budget_seconds(self) -> float:
        return self.batch_seconds  # as on a GPU

    def load(self, device: str) -> None:
        values = np.random.default_rng(0).standard_normal((math.ceil(self.window_s * RATE_HZ), DIM), np.float32)
        self.frames_ND = values.astype(self.frames_dtype)
        self.device_free_at = 0.0

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        seconds, given = sum(map(len, waveforms)) / SAMPLE_RATE, time.perf_counter()
        self.device_free_at = max(self.device_free_at, given) + seconds / self.speed
        time.sleep(max(0.0, self.device_free_at - time.perf_counter()))
        BATCHES.append((given, time.perf_counter(), seconds))
        return [self.frames_ND[: -(-len(x) // HOP)] for x in waveforms]
