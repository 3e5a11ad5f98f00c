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
    from coat.trainer.config import TrainConfig
    from coat.trainer.data import Sample, iterate_shards
    from coat.trainer.export import export_run
    from coat.trainer.generate import Trained, load_run
    from coat.trainer.loop import TrainResult, train

PUBLIC = {
    "Sample": "coat.trainer.data",
    "TrainConfig": "coat.trainer.config",
    "TrainResult": "coat.trainer.loop",
    "Trained": "coat.trainer.generate",
    "export_run": "coat.trainer.export",
    "iterate_shards": "coat.trainer.data",
    "load_run": "coat.trainer.generate",
    "train": "coat.trainer.loop",
}

__all__ = ["Sample", "TrainConfig", "TrainResult", "Trained", "export_run", "iterate_shards", "load_run", "train"]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)
