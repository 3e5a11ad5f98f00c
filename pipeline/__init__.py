"""Extraction at scale: plan, work, commit, read back, join into shards."""

from coat.pipeline.extract import Summary, Where, extract
from coat.pipeline.shards import build_shards
from coat.pipeline.store import Target, TargetSet, TargetStore
from coat.pipeline.verify import verify

__all__ = ["Summary", "Target", "TargetSet", "TargetStore", "Where", "build_shards", "extract", "verify"]
