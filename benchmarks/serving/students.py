"""Tiny students that servers take (heads of 32, whole towers of 30 s), trained for some steps, and their exports."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coat.manifests.corpus.synthesis import make_corpus
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shards.build import build_shards
from coat.trainer import TrainConfig, train
from coat.trainer.tiny_students.make import make_tiny_student

NAMES = ("qwen2-audio", "qwen2.5-omni", "audio-flamingo-3")
CLIPS, STEPS, K = 24, 4, 32
TINY: dict[str, Any] = {"hidden": 64, "heads": 2, "text_layers": 2, "audio_layers": 1, "weights_std": 0.4}


@dataclass(frozen=True)
class Run:
    """A trained student. `path`: the run's folder."""

    name: str
    path: Path


def shards(home: Path) -> Path:
    """Some clips with one expert's targets, made once."""
    folder = home / "shards"
    if (folder / "index.json").exists():
        return folder
    for part in ("corpus", "targets", "shards"):
        shutil.rmtree(home / part, ignore_errors=True)
    manifest = make_corpus(str(home / "corpus"), clips=CLIPS, heldout=0.25)
    extract(manifest, str(home / "targets"), ["pitch"], resources=Resources(workers=0))
    build_shards(str(home / "corpus" / "train.jsonl"), str(home / "targets"), ["pitch"], str(folder))
    return folder


def trained_run(name: str, home: Path, count: int = K, seconds: int = 30, **sizes: Any) -> Run:
    """A run of `count` think positions, made anew: at a rate that makes its adapter matter."""
    student, out = home / f"student-{name}", home / f"run-{name}-{count}"
    for folder in (student, out):
        shutil.rmtree(folder, ignore_errors=True)
    make_tiny_student(student, name=name, seconds=seconds, **{**TINY, **sizes})
    config = TrainConfig.from_dict(
        {
            "student": {"path": str(student)},
            "thinking": {"count": count},
            "data": {"shards": str(shards(home)), "batch_size": 2, "shuffle": 8, "workers": 1},
            "heads": {"dim": 16, "layers": 1, "heads": 2},
            "lora": {"rank": 4},
            "optim": {"lr": 0.02, "heads_lr": 0.02, "warmup": 2},
            "stages": [{"name": "answer", "steps": STEPS, "distill": 0.5}],
            "run": {"out": str(out), "save_every": 1000, "log_every": STEPS},
        },
        "serving",
    )
    train(config)
    return Run(name, out)
