"""What a run with two Ray workers puts into Ray's object store: unit descriptions at most, never features."""

from typing import Any

from benchmarks.common import ROOT, Figure, corpus, ray_of, results, run
from coat.pipeline.cluster.ray_connection import connect
from coat.pipeline.cluster.resources import Cluster

CLIPS = 400


def store_stats() -> Any:
    """Of all nodes since Ray's start: `cumulative_created_bytes`, `object_store_bytes_used`, and more."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    return get_memory_info_reply(get_state_from_address(ray.get_runtime_context().gcs_address)).store_stats


def main() -> None:
    import ray

    with results("object_store") as found:
        assert connect(Cluster(workers=2))  # `extract` uses the Ray that is there, and leaves it up for the question
        try:
            empty = store_stats().cumulative_created_bytes
            measured = run(corpus(CLIPS, seed=2), ROOT / "store", "mel", None, ray_of(1, 2))
            stats = store_stats()
        finally:
            ray.shutdown()
        created = stats.cumulative_created_bytes - empty
        written = measured.summary.bytes
        found.add(
            Figure(
                "Bytes ever put into Ray's object store, two workers",
                f"{created:,} of {written:,} written",
                "no features: < 1 %",
                created < 0.01 * written,
                f"{stats.cumulative_created_objects} objects for {measured.summary.units_done} units; "
                f"{stats.spilled_bytes_total} bytes spilled",
            )
        )
        found.data = {
            "created_bytes": created,
            "created_objects": stats.cumulative_created_objects,
            "used_bytes_after": stats.object_store_bytes_used,
            "target_bytes": written,
            "units": measured.summary.units_done,
        }


if __name__ == "__main__":
    main()
