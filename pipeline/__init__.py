"""Extraction at scale: plan, work, commit, read back, join into shards.

    extract("corpus.jsonl", "targets", ["pitch"])
    TargetStore("targets").target_set("pitch").read("utterance-1")
    build_shards("corpus.jsonl", "targets", ["pitch"], "shards")

Names are imported when first used: reading a store loads neither torch nor Ray.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coat.pipeline.cluster.resources import Resources
    from coat.pipeline.extraction.extraction import RowSelection, extract
    from coat.pipeline.extraction.summary import Summary
    from coat.pipeline.shards.build import build_shards
    from coat.pipeline.store.target_set import Target, TargetSet
    from coat.pipeline.store.target_store import TargetStore
    from coat.pipeline.store_checks.verification import verify

PUBLIC = {
    "Resources": "coat.pipeline.cluster.resources",
    "RowSelection": "coat.pipeline.extraction.extraction",
    "Summary": "coat.pipeline.extraction.summary",
    "Target": "coat.pipeline.store.target_set",
    "TargetSet": "coat.pipeline.store.target_set",
    "TargetStore": "coat.pipeline.store.target_store",
    "build_shards": "coat.pipeline.shards.build",
    "extract": "coat.pipeline.extraction.extraction",
    "verify": "coat.pipeline.store_checks.verification",
}

__all__ = [
    "Resources",
    "RowSelection",
    "Summary",
    "Target",
    "TargetSet",
    "TargetStore",
    "build_shards",
    "extract",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)
