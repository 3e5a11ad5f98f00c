"""Toy shards in coat's format, written by webdataset alone, and small runs over them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import xxhash
from webdataset.writer import TarWriter

from coat.manifests import ExpertInfo, ShardIndex, ShardInfo, TargetSpec
from coat.trainer.config.train_config import TrainConfig

RATE = 16000

SPECS = {
    "pitch": TargetSpec(
        expert="pitch", version=1, family="pitch", kind="pitch", dim=3, rate_hz=62.5, start_s=0.008,
        sample_rate=RATE, min_samples=256, channels=("log2_f0_hz", "voicing", "loudness_db"),
    ),
    "mel": TargetSpec(
        expert="mel", version=1, family="reconstruction", kind="representation", dim=6, rate_hz=20.0, start_s=0.0,
        sample_rate=RATE, min_samples=256,
    ),
    "events": TargetSpec(
        expert="events", version=1, family="events", kind="probabilities", dim=5, rate_hz=2.0, start_s=0.25,
        sample_rate=RATE, min_samples=256,
    ),
    "prosody": TargetSpec(
        expert="prosody", version=1, family="prosody", kind="scalars", dim=4, rate_hz=10.0, start_s=0.05,
        sample_rate=RATE, min_samples=256,
    ),
}  # fmt: skip


def toy_targets(rng: np.random.Generator, seconds: float) -> dict[str, np.ndarray]:
    targets = {}
    for name, spec in SPECS.items():
        frames = max(1, int((seconds - spec.start_s) * spec.rate_hz))
        values = rng.normal(2.0, 3.0, (frames, spec.dim))
        if name == "pitch":
            values[:, 0] = rng.uniform(6.0, 10.0, frames)
            values[:, 1] = rng.random(frames)
        if name == "events":
            values = rng.random((frames, spec.dim))
        if name == "prosody":
            values[:, 3] = 0.1  # a dimension that never varies
        targets[name] = values.astype(spec.dtype)
    return targets


def toy_sample(i: int, seconds: float = 1.0, **changes: Any) -> dict[str, Any]:
    """One sample to write: a tone with its question, and random targets."""
    rng = np.random.default_rng([17, i])
    hz = 200.0 if i % 2 else 800.0
    time_S = np.arange(int(seconds * RATE)) / RATE
    return {
        "key": f"s{i:03d}",
        "audio": (0.3 * np.sin(2 * np.pi * hz * time_S)).astype(np.float32),
        "meta": {"prompt": "High or low?", "response": "low" if i % 2 else "high", "choices": ["high", "low"]},
        "targets": toy_targets(rng, seconds),
        **changes,
    }


def toy_conversation(i: int, **meta: Any) -> dict[str, Any]:
    """A sample of three turns."""
    sample = toy_sample(i)
    turns = [["What is it?", "a tone"], ["Is it loud?", "no, soft"]]
    return {**sample, "meta": {**sample["meta"], "extra": {"turns": turns}, **meta}}


def toy_text(i: int) -> dict[str, Any]:
    """A sample of text alone."""
    meta = {"prompt": "What is twice two?", "response": "four", "audio": None}
    return {"key": f"t{i:03d}", "audio": np.zeros(0, np.float32), "meta": meta, "targets": {}}


def write_shards(folder: Path, samples: list[dict[str, Any]], per_shard: int = 4) -> Path:
    """`folder` with tars and index.json. A sample's `raw` members are written over those made here."""
    folder.mkdir(parents=True, exist_ok=True)
    shards, seen = [], {name: [] for name in SPECS}
    for n, start in enumerate(range(0, len(samples), per_shard)):
        part = samples[start : start + per_shard]
        path = folder / f"shard-{n:05d}.tar"
        with path.open("wb") as f, TarWriter(f, mtime=0, encoder=False) as tar:
            for sample in part:
                tar.write(members(sample))
                for name, frames in sample["targets"].items():
                    seen[name].append(frames.astype(np.float64))
        data = path.read_bytes()
        seconds = sum(len(s["audio"]) for s in part) / RATE
        shards.append(
            ShardInfo(
                name=path.name, samples=len(part), bytes=len(data), seconds=seconds,
                xxh3=xxhash.xxh3_128_hexdigest(data),
            )
        )  # fmt: skip
    experts = {}
    for name, spec in SPECS.items():
        frames = np.concatenate([*seen[name], np.zeros((0, spec.dim))])
        mean = np.nanmean(frames, 0) if len(frames) else np.zeros(spec.dim)
        std = np.nanstd(frames, 0) if len(frames) else np.ones(spec.dim)
        experts[name] = ExpertInfo(
            spec=spec, samples=len(seen[name]), frames=len(frames),
            mean=tuple(mean.tolist()), std=tuple(np.where(std < 1e-9, 0.0, std).tolist()),
        )  # fmt: skip
    index = ShardIndex(path=str(folder), layout="joint", sample_rate=RATE, shards=tuple(shards), experts=experts)
    index.write(str(folder))
    return folder


def members(sample: dict[str, Any]) -> dict[str, Any]:
    flac = io.BytesIO()
    if len(sample["audio"]):
        soundfile.write(flac, sample["audio"], RATE, format="FLAC", subtype="PCM_16")
    meta = {
        "id": sample["key"], "key": sample["key"], "duration": len(sample["audio"]) / RATE,
        "targets": {name: len(frames) for name, frames in sample["targets"].items()}, **sample["meta"],
    }  # fmt: skip
    arrays = {}
    for name, frames in sample["targets"].items():
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, frames, allow_pickle=False)
        arrays[f"{name}.npy"] = buffer.getvalue()
    audio = {"flac": flac.getvalue()} if len(sample["audio"]) else {}
    return {
        "__key__": sample["key"], **audio, "json": json.dumps(meta).encode(),
        **arrays, **sample.get("raw", {}),
    }  # fmt: skip


def toy_config(student: Path, shards: Path, out: Path, /, *, steps: int = 6, **parts: Any) -> TrainConfig:
    """A run of two short stages; `parts` are laid over it by table."""
    data: dict[str, Any] = {
        "student": {"path": str(student)},
        "thinking": {"count": 4},
        "data": {"shards": str(shards), "batch_size": 2, "shuffle": 4, "workers": 1},
        "heads": {"dim": 16, "layers": 1, "heads": 2},
        "lora": {"full": True},
        "optim": {"lr": 1e-3, "heads_lr": 1e-3, "warmup": 2},
        "stages": [
            {"name": "distill", "steps": steps // 2, "ce": 0.1},
            {"name": "answer", "steps": steps - steps // 2, "distill": 0.5, "distill_end": 0.1},
        ],
        "run": {"out": str(out), "save_every": 2, "log_every": 1},
    }
    for name, part in parts.items():
        data[name] = part if name == "stages" else {**data.get(name, {}), **part}
    return TrainConfig.from_dict(data, "test")
