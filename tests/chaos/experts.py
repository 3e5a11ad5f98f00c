"""Experts that break on purpose. The fault is real: a signal, a segmentation fault, memory that is really eaten."""

import ctypes
import os
import signal
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from coat.extractors.expert import Frames, Options, Waveform
from coat.pipeline.decoding import shared_audio
from coat.pipeline.store import frames_writer, unit_writer
from tests.pipeline.experts import Level, Slow

GREEDY_BYTES = 64 * 2**20


def loud(waveforms: Sequence[Waveform]) -> bool:
    """Whether the poisonous row is in the batch: it peaks at 1, the others at 0.5."""
    return any(np.abs(w).max() > 0.99 for w in waveforms)


class Killed(Slow):
    """A worker dies by SIGKILL in the stage that the file `stage` in the folder `--checkpoint` names, so often as
    `times` there says. Its targets are those of `Slow`."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.folder = Path(str(options.checkpoint))

    def load(self, device: str) -> None:
        super().load(device)
        stage = (self.folder / "stage").read_text()
        self.level = super().extract
        if stage == "forward":
            self.level = self.deadly(self.level, after=2)
        elif stage == "decode":
            shared_audio.AudioFile = self.deadly(shared_audio.AudioFile, after=7)  # pyright: ignore
        elif stage == "write":
            frames_writer.checksum = self.deadly(frames_writer.checksum, after=15)  # a unit of a minute has 12 chunks
        elif stage == "before done.json":
            unit_writer.rows_parquet = self.deadly(unit_writer.rows_parquet, after=1)
        elif stage == "before the rename":
            unit_writer.publish = self.deadly(unit_writer.publish, after=1)
        else:
            raise AssertionError(stage)

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return self.level(waveforms)

    def deadly(self, function: Callable, after: int) -> Callable:
        calls = 0

        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > after and self.hit():
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    def hit(self) -> bool:
        """True for as many callers, over all processes, as there are deaths to die."""
        for i in range(int((self.folder / "times").read_text())):
            try:
                os.close(os.open(self.folder / f"hit-{i}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return True
        return False


class Segfault(Level):
    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if loud(waveforms):
            ctypes.string_at(0)
        return super().extract(waveforms)


class Greedy(Level):
    """Eats memory until it is killed, up to 12 GB."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if loud(waveforms):
            eaten = []
            for _ in range(192):
                eaten.append(np.ones(GREEDY_BYTES, dtype=np.uint8))
                time.sleep(0.02)
        return super().extract(waveforms)


class Hanging(Level):
    """Tells that it hangs by the folder `--checkpoint`."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if loud(waveforms):
            if self.options.checkpoint:
                Path(self.options.checkpoint).mkdir()
            time.sleep(10_000)
        return super().extract(waveforms)


class CudaScarce(Level):
    """What CUDA raises, with more than two clips in a batch."""

    pads = False  # so that clips of all lengths share a batch

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if len(waveforms) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().extract(waveforms)


class Hoarder(Level):
    """Memory for 6 s, of which earlier passes may hold some. Tells of its passes in the folder `--checkpoint`."""

    pads = False
    room = 6 * 16000  # samples
    held: list[weakref.ref] = []  # noqa: RUF012  of all passes of this process

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        activations = [Activation(len(w)) for w in waveforms]
        self.held += [weakref.ref(a) for a in activations]
        wanted, alive = sum(a.samples for a in activations), sum(a.samples for r in self.held if (a := r()))
        with (Path(str(self.options.checkpoint)) / "passes").open("a") as f:
            f.write(f"{wanted} {alive}\n")
        if alive > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().extract(waveforms)


class Activation:
    """Stands for a tensor of a forward pass: it lives as long as somebody refers to it."""

    def __init__(self, samples: int) -> None:
        self.samples = samples


class Sticky(Level):
    """The poisonous row breaks the device of its process: from then on whatever is computed there fails."""

    pads = False  # so that it shares a batch
    lost = False

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if type(self).lost or self.breaks(waveforms):
            type(self).lost = True
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return super().extract(waveforms)

    def breaks(self, waveforms: Sequence[Waveform]) -> bool:
        return loud(waveforms)


class StickyOnce(Sticky):
    """Any row may break the device, but only once in all processes; the folder `--checkpoint` knows."""

    def breaks(self, waveforms: Sequence[Waveform]) -> bool:
        try:
            os.close(os.open(f"{self.options.checkpoint}/broken", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


class Unlucky(Level):
    """Loses the device at each batch, on which other experts do well."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")


class Gathered(Slow):
    """Begins when as many workers have loaded it as the file `workers` in the folder `--checkpoint` says.

    On a node whose environment says BROKEN_GPU=load or =batch, the device of all its workers is broken; where the
    folder has a file `broken`, all devices are. A worker goes on after eight batches only when `loads` were made.
    """

    batches = 0

    def load(self, device: str) -> None:
        super().load(device)
        folder = Path(str(self.options.checkpoint))
        (folder / f"loaded-{os.getpid()}").touch()
        while len(list(folder.glob("loaded-*"))) < int((folder / "workers").read_text()):
            time.sleep(0.05)
        if os.environ.get("BROKEN_GPU") == "load":
            raise torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        folder = Path(str(self.options.checkpoint))
        if os.environ.get("BROKEN_GPU") == "batch" or (folder / "broken").exists():
            raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")
        time.sleep(0.4)  # so that there is work left when a worker has been tried
        self.batches += 1
        deadline = time.monotonic() + 300
        while self.batches == 8 and len(list(folder.glob("loaded-*"))) < int((folder / "loads").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return super().extract(waveforms)


class Steady(Level):
    """Slow enough that a node can come or go in the middle: half a second a batch."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        time.sleep(0.5)
        return super().extract(waveforms)
