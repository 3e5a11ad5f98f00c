"""`--batch-seconds auto`: how much audio a forward pass should hold, measured on the device that will run it.

Passes of doubling size over noise, until one is no faster, or memory ends. What is chosen is recorded in the target set
(`batch.json`), so that all workers and all later runs cut the same batches.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from coat.extractors.expert import Expert, Waveform
from coat.manifests import storage
from coat.manifests.errors import InputError, RunError
from coat.pipeline.store.layout import BATCH
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.device_errors import free_memory, is_out_of_memory
from coat.pipeline.worker.model import load_expert

CLIP_S = 10.0  # of the noise, or a window where that is shorter
FIRST_S, LAST_S = 15.0, 3840.0  # padded seconds of a pass that are tried
WORTH = 1.05  # a larger pass that is not so much faster is not worth its memory
MEMORY_SHARE = 0.8  # of a GPU's memory that a pass may take: other clips have other lengths
PASSES = 3  # of each size, of which the fastest counts


@dataclass(frozen=True)
class Pass:
    """One size that was tried."""

    seconds: float  # padded
    speed: float  # padded seconds a second
    memory_share: float | None = None  # of the GPU's, at its peak


@dataclass(frozen=True)
class BatchSize:
    """What was chosen, and why."""

    seconds: float
    device: str
    tried: tuple[Pass, ...]

    def __str__(self) -> str:
        tried = ", ".join(f"{p.seconds:g} s {p.speed:,.0f} x" for p in self.tried)
        return f"batches of {self.seconds:g} s on {self.device} ({tried})"


def measure_batch_size(config: WorkerConfig) -> BatchSize:
    """Load the expert here and try it. RunError where not even one clip fits into memory."""
    torch.set_num_threads(config.threads)
    expert = load_expert(config)
    samples = round(min(CLIP_S, expert.window_s) * expert.spec.sample_rate)
    padded_s = expert.padded_samples(samples) / expert.spec.sample_rate
    noise = np.random.default_rng(0).normal(scale=0.1, size=samples).astype(np.float32)
    tried: list[Pass] = []
    clips = max(1, round(FIRST_S / padded_s))
    while clips * padded_s <= LAST_S or not tried:
        found = try_pass(expert, [noise] * clips, clips * padded_s)
        if found is None or (found.memory_share or 0.0) > MEMORY_SHARE:
            break
        tried.append(found)
        if len(tried) > 1 and found.speed < tried[-2].speed * WORTH:
            break
        clips *= 2
    if not tried:
        raise RunError(
            f"{config.expert}: {clips} clips of {padded_s:g} s do not fit into the memory of {config.device}"
        )
    return BatchSize(choose(tried), device_name(config.device), tuple(tried))


def try_pass(expert: Expert, clips: Sequence[Waveform], padded_s: float) -> Pass | None:
    """None where memory runs out."""
    cuda = expert.device.startswith("cuda")
    if cuda:
        torch.cuda.reset_peak_memory_stats(expert.device)
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        try:
            expert.extract(clips)
        except Exception as e:
            if not is_out_of_memory(e):
                raise
            free_memory(e)
            return None
        seconds.append(time.perf_counter() - started)
    share = None
    if cuda:
        share = (
            torch.cuda.max_memory_reserved(expert.device) / torch.cuda.get_device_properties(expert.device).total_memory
        )
    return Pass(padded_s, padded_s / min(seconds), share)


def choose(tried: Sequence[Pass]) -> float:
    """The smallest that is about as fast as the fastest."""
    fastest = max(p.speed for p in tried)
    return min(p.seconds for p in tried if p.speed * WORTH >= fastest)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def recorded_batch_seconds(set_url: str) -> float | None:
    """What an earlier run chose; None where none did. InputError where the file is not what coat wrote."""
    url = storage.join(set_url, BATCH)
    if not storage.exists(url):
        return None
    found: Any = storage.read_json(url)
    seconds = found.get("seconds") if isinstance(found, dict) else None
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise InputError(f"{url}: expected seconds above 0; remove the file, and it is measured again")
    return float(seconds)


def record_batch_size(set_url: str, size: BatchSize) -> None:
    storage.write_bytes(storage.join(set_url, BATCH), storage.to_json(asdict(size)), parents=False)
