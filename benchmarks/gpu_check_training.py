"""Training steps of three students for `gpu_check`: time, tokens, use of the device, memory beside the prediction.

Random weights of 1.3 billion parameters (the audio tower's among them) in bfloat16, LoRA, five heads with targets of
the sizes that `coat plan-train` takes; batches of 30 s with some 160 tokens of text, as many samples as should fit.
Operations are those that torch counts in a step; of frozen weights no gradient is computed.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import speech_like
from coat.manifests import ExpertInfo, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.samples import Sample
from coat.trainer.model.batch import Batch
from coat.trainer.model.build import build_model
from coat.trainer.planning.activations import Shape
from coat.trainer.planning.footprint import Footprint
from coat.trainer.planning.online_experts import ONLINE_EXPERTS
from coat.trainer.planning.plan import plan_training
from coat.trainer.tiny_students.make import make_tiny_student
from coat.trainer.training.distributed.parallel import make_accelerator
from coat.trainer.training.step.trainer import Trainer
from coat.trainer.training.step.watchdog import Watchdog

STUDENTS = ("qwen2-audio", "audio-flamingo-3", "qwen2.5-omni")
LARGE = {"hidden": 2048, "text_layers": 16, "audio_layers": 4, "heads": 16, "seconds": 30}  # 1.3 billion
BATCHES = (16, 8, 4, 2, 1)  # samples of a pass, the first that fits
WARM_UP, STEPS = 3, 8
RATE, TOKENS, RESPONSE = 16000, 160, 40  # text is a token a byte, the chat's own too
MAY_EXCEED = 1.25  # what is predicted, by the peak of the allocator
WAITS = 1  # of the host for the device, in a step: for what is logged
# Dense bf16 operations a second, by NVIDIA's data sheets (of SXM modules).
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "B200": 2250e12, "L40S": 362e12}


@dataclass(frozen=True)
class Speed:
    seconds: float  # a step
    positions: int  # of its batch, with padding
    peak_bytes: int  # of the allocator; 0: on CPUs
    waits: int | None  # of the host, in a step; None: not counted, as on CPUs
    operations: float  # of a step; 0: not counted


def check_student(name: str, root: Path, tiny: bool, may_compile: Callable[[], bool]) -> str:
    """One student, eager and compiled: what was found. AssertionError where memory or waits are not as said."""
    folder = make_tiny_student(root / name, name=name, **({} if tiny else LARGE))
    experts = {e.name: e.info() for e in ONLINE_EXPERTS}
    seconds = 2.0 if tiny else 30.0
    batch_size, planned = fitting(folder, seconds, 2 if tiny else None)
    found: dict[str, Speed] = {}
    for backend in (None, "eager" if tiny else "inductor"):  # that one traces alone
        if backend is not None and not may_compile():
            break
        config = config_of(folder, batch_size, backend)
        found["compiled" if backend else "eager"] = measure(config, experts, seconds, tiny)
        free_memory()
    return told(name, found, planned, batch_size)


def told(name: str, found: dict[str, Speed], planned: Footprint, batch_size: int) -> str:
    eager = found["eager"]
    predicted = planned.total(checkpointing=False)
    said = [f"{planned.parameters / 1e9:.2f} billion parameters, {batch_size} samples, {eager.positions} positions"]
    for how, speed in found.items():
        line = f"{how} {1000 * speed.seconds:,.0f} ms a step, {speed.positions / speed.seconds:,.0f} tokens/s"
        rate = eager.operations / speed.seconds
        peak = peak_operations()
        line += f", {rate / 1e12:,.1f} TFLOP/s" + (f", MFU {rate / peak:.0%}" if peak else "")
        line += f", {speed.peak_bytes / 2**30:.1f} GiB at most" if speed.peak_bytes else ""
        said.append(line + ("" if speed.waits is None else f", the host waited {speed.waits} times a step"))
    said.append(f"plan-train says {predicted / 2**30:.1f} GiB for {batch_size * planned.positions} positions")
    text = "; ".join(said)
    if len(found) < 2:
        text += "; not compiled: no time was left"
    if eager.waits is not None:
        assert eager.peak_bytes <= MAY_EXCEED * predicted, f"{text}; more than {MAY_EXCEED:.2f} of what is predicted"
        assert eager.waits <= WAITS, f"{text}; the host waited more than {WAITS} time in a step"
    return text


def config_of(folder: Path, batch_size: int, backend: str | None = None) -> TrainConfig:
    run: dict[str, Any] = {"out": str(folder / "run")}
    return TrainConfig.from_dict(
        {
            "student": {"path": str(folder), "dtype": "bfloat16"},
            "data": {"shards": "none", "batch_size": batch_size},
            "run": run if backend is None else {**run, "compile": backend},
        },
        "gpu_check",
    )


def fitting(folder: Path, seconds: float, fixed: int | None) -> tuple[int, Footprint]:
    """The largest batch that is predicted to fit, and the prediction."""
    for size in (fixed,) if fixed else BATCHES:
        planned = plan_training(config_of(folder, size), Shape(size, seconds, TOKENS, RESPONSE))
        if fixed or size == BATCHES[-1] or planned.fits(device_memory(), checkpointing=False):
            return size, planned
    raise AssertionError


def measure(config: TrainConfig, experts: dict[str, ExpertInfo], seconds: float, tiny: bool) -> Speed:
    accelerator = make_accelerator(config)
    model = build_model(config, experts)
    watchdog = Watchdog(config.run, float("inf"), log=lambda _: None, kept=lambda: "nothing is written")
    trainer = Trainer(config, model, experts, accelerator, watchdog)
    index = ShardIndex(path="none", layout="joint", sample_rate=RATE, shards=(), experts=experts)
    collator = Collator(model.student, model.block, index, list(experts))
    batch = make_batch(collator, config, seconds)
    batch = batch.pinned() if torch.cuda.is_available() else batch
    model.train()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for _ in range(1 if tiny else WARM_UP):
        trainer.step([batch])
    steps = 1 if tiny else STEPS
    started = time.perf_counter()
    for _ in range(steps):
        trainer.step([batch])
    wait()
    taken = (time.perf_counter() - started) / steps
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    eager = config.run.compile is None
    waits = count_waits(lambda: trainer.step([batch])) if torch.cuda.is_available() and eager else None
    return Speed(taken, batch.positions[1], peak, waits, operations(trainer, batch) if eager else 0.0)


def operations(trainer: Trainer, batch: Batch) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        trainer.step([batch])
    return counter.get_total_flops()


def count_waits(step: Callable[[], Any]) -> int:
    """How often the host waits for the device in a step: torch warns of each."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def make_batch(collator: Collator, config: TrainConfig, seconds: float) -> Batch:
    samples = list(samples_of(collator, config.data.batch_size, seconds))
    return collator.collate([collator.encode(sample, config.data) for sample in samples])


def samples_of(collator: Collator, count: int, seconds: float) -> Iterator[Sample]:
    """Speech-like sound, text of TOKENS bytes or so, and random targets in float16."""
    rng = np.random.default_rng(0)
    prompt = "What is heard?" + " It is so." * 2
    for i in range(count):
        targets = {name: rng.random((max(1, int(seconds * s.rate_hz)), s.dim)) for name, s in collator.experts.items()}
        yield Sample(
            id=f"s{i}", key=f"s{i}", samples_S=speech_like(rng, int(seconds * RATE), RATE), sample_rate=RATE, text=None,
            prompt=prompt, response="a voice, ".ljust(RESPONSE - 1, "m"),
            targets={name: frames.astype(np.float16) for name, frames in targets.items()},
        )  # fmt: skip


def peak_operations() -> float | None:
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((rate for known, rate in PEAK.items() if known in name), None)


def device_memory() -> float:
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 8e9


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free_memory() -> None:
    import gc

    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
