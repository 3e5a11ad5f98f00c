"""The student: a large audio language model that learns to think in continuous audio states.

    for sample in iterate_shards("shards/"): ...
    result = train(TrainConfig.read("train.toml"))
    load_run("runs/a").ask("clip.wav", "What is said?")
    export_run("runs/a", "exported")

Names are imported when first used: `import coat.trainer` loads neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coat.trainer.config.train_config import TrainConfig
    from coat.trainer.data.samples import Sample
    from coat.trainer.data.shard_reading import iterate_shards
    from coat.trainer.export.export import export_run
    from coat.trainer.generation.generate import Trained
    from coat.trainer.generation.run_student import load_run
    from coat.trainer.training.run import TrainResult
    from coat.trainer.training.train import train

PUBLIC = {
    "Sample": "coat.trainer.data.samples",
    "TrainConfig": "coat.trainer.config.train_config",
    "TrainResult": "coat.trainer.training.run",
    "Trained": "coat.trainer.generation.generate",
    "export_run": "coat.trainer.export.export",
    "iterate_shards": "coat.trainer.data.shard_reading",
    "load_run": "coat.trainer.generation.run_student",
    "train": "coat.trainer.training.train",
}

__all__ = ["Sample", "TrainConfig", "TrainResult", "Trained", "export_run", "iterate_shards", "load_run", "train"]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)
