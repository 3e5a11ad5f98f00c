"""Features never enter Ray's object store: it would hold every target twice, and spill."""

from pathlib import Path
from typing import Any

import numpy as np

from coat.pipeline.cluster.ray_connection import connect
from coat.pipeline.cluster.resources import Cluster, Resources
from coat.pipeline.extraction.extraction import extract
from tests.pipeline.conftest import Corpus


def created_bytes() -> int:
    """By all nodes, since Ray's start, whether they are still there or not."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    ours = ray.get_runtime_context().gcs_address  # another Ray may run on this machine
    stats: Any = get_memory_info_reply(get_state_from_address(ours)).store_stats
    return stats.cumulative_created_bytes


def test_no_feature_enters_the_object_store(make_corpus: Corpus, tmp_path: Path) -> None:
    import ray

    manifest = make_corpus(64)
    started = connect(Cluster(workers=2))
    try:
        before = created_bytes()
        (summary,) = extract(
            str(manifest), str(tmp_path / "store"), ["mel"], resources=Resources(workers=2, device="cpu")
        )
        created = created_bytes() - before
        assert summary.ok == 64
        assert summary.bytes > 3e6
        assert created < 0.01 * summary.bytes
        kept = ray.put(np.zeros(summary.bytes, np.uint8))  # had they entered it, it would have been counted
        assert created_bytes() - before >= summary.bytes
        del kept
    finally:
        if started:
            ray.shutdown()
