"""What runs on Ray, of all rooms: it takes some 8 s to start. And how tests start a run as a user does.

Runs that are killed: tests/chaos/test_killed_runs.py.
"""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coat.manifests import RunError
from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shards.build import build_shards
from coat.pipeline.statistics.compute import compute_statistics
from coat.pipeline.statistics.saved_sums import dask_scheduler
from coat.pipeline.store_checks.verification import verify
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run, tree
from tests.pipeline.statistics.test_statistics import check, correlated, put_all, spec_of

ROOT = Path(__file__).parents[3]


def command(manifest: Path, store: Path, expert: str, *more: str) -> list[str]:
    expert = f"tests.pipeline.experts:{expert}"
    where = ["--manifest", str(manifest), "--store", str(store)]
    return [sys.executable, "-m", "coat", "extract", "--expert", expert, *where, *more]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """In a process group of its own, so that a kill takes its workers along as a node's death would."""
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_units(store: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while len(list(store.glob("*/*/units/*/done.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def created_bytes() -> int:
    """In Ray's object store, by all nodes, since Ray's start, whether they are still there or not."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    ours = ray.get_runtime_context().gcs_address  # another Ray may run on this machine
    stats: Any = get_memory_info_reply(get_state_from_address(ours)).store_stats
    return stats.cumulative_created_bytes


@pytest.mark.usefixtures("ray_here")
def test_no_feature_enters_the_object_store(make_corpus: Corpus, tmp_path: Path) -> None:
    """It would hold every target twice, and spill."""
    import ray

    before = created_bytes()
    resources = Resources(workers=2, device="cpu")
    (summary,) = extract(str(make_corpus(64)), str(tmp_path / "store"), ["mel"], resources=resources)
    created = created_bytes() - before
    assert summary.ok == 64
    assert summary.bytes > 3e6
    assert created < 0.01 * summary.bytes
    kept = ray.put(np.zeros(summary.bytes, np.uint8))  # had they entered it, it would have been counted
    assert created_bytes() - before >= summary.bytes
    del kept


@pytest.mark.usefixtures("ray_here")
def test_ray_workers_write_the_bytes_that_this_process_writes(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(120)
    run(manifest, tmp_path / "here")
    names = ["tests.pipeline.experts:Level"]
    (summary,) = extract(str(manifest), str(tmp_path / "ray"), names, resources=Resources(workers=2))
    assert summary.ok == 120
    assert summary.units_done > 2
    assert tree(tmp_path / "ray") == tree(tmp_path / "here")


@pytest.mark.usefixtures("ray_here")
def test_an_expert_that_cannot_start_on_workers_ends_the_run(make_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no GPU driver here"):
        extract(
            str(make_corpus(4)),
            str(tmp_path / "store"),
            ["tests.pipeline.experts:Unloadable"],
            resources=Resources(workers=1),
        )


@pytest.mark.usefixtures("ray_here")
def test_ray_writes_the_shards_that_this_process_writes(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = str(make_corpus(60)), str(tmp_path / "store")
    run(Path(manifest), Path(store))
    of = (manifest, store, ["level"])
    index = build_shards(*of, str(tmp_path / "here"), 400_000)
    assert len(index.shards) > 5
    build_shards(*of, str(tmp_path / "ray"), 400_000, workers=2, ray_address="auto", block_bytes=150_000)
    assert tree(tmp_path / "here") == tree(tmp_path / "ray")


@pytest.mark.usefixtures("ray_here")
def test_ray_finds_the_damage_that_this_process_finds(many: Path, tmp_path: Path) -> None:
    run(many, tmp_path / "store")
    unit = min((tmp_path / "store").rglob("done.json")).parent
    (unit / "rows.parquet").unlink()
    on_ray = partial(run_ordered, workers=2, ray_address="auto")
    found = verify(str(tmp_path / "store"), run_jobs=on_ray)
    assert found == verify(str(tmp_path / "store"))
    assert len(found.damages) > 0


@pytest.mark.usefixtures("ray_here")
def test_statistics_on_ray_are_those_of_numpy(tmp_path: Path) -> None:
    frames_ND = correlated(3000, 16).astype(np.float32)
    targets = put_all(tmp_path, spec_of(16), frames_ND)
    with dask_scheduler("auto") as scheduler:
        assert scheduler != "threads"
        check(compute_statistics(targets, scheduler=scheduler), frames_ND)
