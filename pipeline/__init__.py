"""Extraction at scale: plan, work, commit, read back, join into shards.

    extract("corpus.jsonl", "targets", ["pitch"])
    TargetStore("targets").target_set("pitch").read("utterance-1")
    build_shards("corpus.jsonl", "targets", ["pitch"], "shards")

Names are imported when first used: reading a store loads neither torch nor Ray.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coat.pipeline.cluster import Where
    from coat.pipeline.extraction import extract
    from coat.pipeline.shards import build_shards
    from coat.pipeline.store import Target, TargetSet, TargetStore
    from coat.pipeline.summary import Summary
    from coat.pipeline.verification import verify

PUBLIC = {
    "Summary": "coat.pipeline.summary",
    "Target": "coat.pipeline.store",
    "TargetSet": "coat.pipeline.store",
    "TargetStore": "coat.pipeline.store",
    "Where": "coat.pipeline.cluster",
    "build_shards": "coat.pipeline.shards",
    "extract": "coat.pipeline.extraction",
    "verify": "coat.pipeline.verification",
}

__all__ = ["Summary", "Target", "TargetSet", "TargetStore", "Where", "build_shards", "extract", "verify"]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)
