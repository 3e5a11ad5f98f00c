"""Experts that break on a GPU as models do: a failed device-side assert, memory that runs out. For `gpu_check`."""

from collections.abc import Sequence

import numpy as np
import torch

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform

HOP = 160
SHARE_OF_A_CLIP = 0.3  # of all memory: three clips fit, four do not


class Peaks(Expert):
    """The largest sample of each 10 ms."""

    name = "peaks"
    card = Card(family="prosody", kind="scalars", what="peak", source="coat's benchmarks", licence="Apache-2.0")

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__.lower()

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = self.describe(dim=1, rate_hz=100.0, start_s=0.005, sample_rate=16000, min_samples=HOP)

    def load(self, device: str) -> None:
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [np.abs(x[: len(x) // HOP * HOP]).reshape(-1, HOP).max(axis=1, keepdims=True) for x in waveforms]


class Asserting(Peaks):
    """Fails a device-side assert of a clip that peaks at 1. The device is lost to its process."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if any(np.abs(x).max() > 0.99 for x in waveforms):
            if not self.device.startswith("cuda"):
                raise torch.AcceleratorError("CUDA error: device-side assert triggered")
            table = torch.zeros(4, device=self.device)
            table[torch.tensor([2**20], device=self.device)].sum().item()
        return super().extract(waveforms)


class Hungry(Peaks):
    """Takes a share of all memory for each clip of a pass."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if self.device.startswith("cuda"):
            size = int(SHARE_OF_A_CLIP * torch.cuda.get_device_properties(self.device).total_memory)
            held = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in waveforms]
            del held
        elif len(waveforms) * SHARE_OF_A_CLIP > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().extract(waveforms)
