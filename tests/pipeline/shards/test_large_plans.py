"""What is done for manifests larger than memory gives what small ones get."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import scale_shards, scale_sidecar
from coat.manifests import Manifest
from coat.manifests.corpus import reading, table_spool
from coat.manifests.shards import samples_table
from coat.manifests.shards.samples_table import SAMPLES_NAME
from coat.pipeline.gathering import places
from coat.pipeline.gathering.places import find_newest
from coat.pipeline.plan import row_identities, unit_cuts
from coat.pipeline.plan.planning import make_plan
from coat.pipeline.shards.build import build_shards
from coat.pipeline.store.target_store import TargetStore
from tests.pipeline.shards.test_builds import LEVELS, SHARD, corpus, tree_of

__all__ = ["corpus"]


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of a manifest, column of a plan and tar's rows goes to a file of its own."""
    monkeypatch.setattr(reading, "READ_BYTES", 1000)
    monkeypatch.setattr(table_spool, "IN_MEMORY_BYTES", 1)
    monkeypatch.setattr(places, "IN_MEMORY_BYTES", 1)


def test_columns_on_disk_give_the_same_set(
    corpus: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    build_shards(*corpus, LEVELS, str(tmp_path / "plain"), SHARD)
    request.getfixturevalue("small_memory")
    assert len(Manifest.read(corpus[0], on_disk=True).table.to_batches()) > 5
    build_shards(*corpus, LEVELS, str(tmp_path / "out"), SHARD)
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "plain")


@pytest.mark.usefixtures("small_memory")
def test_a_manifest_on_disk_is_the_one_in_memory(corpus: tuple[str, str]) -> None:
    here, there = Manifest.read(corpus[0]), Manifest.read(corpus[0], on_disk=True)
    assert list(here) == list(there)
    positions = np.random.default_rng(0).integers(0, len(here), 40)
    assert here.take(positions) == there.take(positions)
    assert here[-3] == there[-3]
    for name in ("digests", "id_digests", "with_audio", "durations", "offsets", "lines"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))


def test_samples_are_written_the_same_in_whatever_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_table, "ROW_GROUP", 100)
    schema: Any = pa.schema([("n", pa.int64()), ("s", pa.string())])
    table = pa.table({"n": list(range(1234)), "s": [str(i) for i in range(1234)]}, schema=schema)
    pq.write_table(table, tmp_path / "whole", compression="zstd", row_group_size=100)
    for step in (1, 7, 100, 950, 5000):
        with samples_table.SamplesWriter(schema) as writer:
            for first in range(0, 1234, step):
                writer.add(table.slice(first, step))
            writer.finish(str(tmp_path))
        assert (tmp_path / SAMPLES_NAME).read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_newest_of_equal_digests_is_found() -> None:
    digests = np.array([5, 3, 5, 9, 3], np.uint64)
    found = find_newest(digests, np.argsort(digests, kind="stable"), np.array([3, 4, 5, 9, 1, 10], np.uint64))
    assert found.tolist() == [4, -1, 2, 3, -1, -1]


@pytest.mark.usefixtures("small_memory")
def test_units_of_a_manifest_on_disk_are_those_of_one_in_memory(
    corpus: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (Manifest.read(corpus[0], spans=True, on_disk=on_disk) for on_disk in (False, True))
    assert len(there.table.to_batches()) > 5
    monkeypatch.setattr(unit_cuts, "WINDOW_ROWS", 7)
    monkeypatch.setattr(row_identities, "BLOCK_ROWS", 5)
    targets = TargetStore(corpus[1]).target_set(LEVELS[0])
    for covered in (np.empty(0, np.uint64), here.digests[::3]):
        plans = [make_plan(manifest, targets.spec, covered) for manifest in (here, there)]
        units = [list(plan.units) for plan in plans]
        assert units[0] == units[1]
        assert sum(len(unit.rows) for unit in units[0]) == len(here) - len(covered)


def test_the_benchmark_of_memory_does_what_it_says(tmp_path: Path) -> None:
    """Small: that it finds the rows that are there."""
    rows = 2000
    result = scale_shards.measure(tmp_path / "s", rows, ["resume", "add-expert"], keep=False)
    found = result["add-expert"]
    assert (result["resume"]["units"] > 0, found["samples"]) == (True, rows)
    assert rows * 0.9 < found["with_targets"] < rows
    assert found["evaluated"] == scale_sidecar.EVALUATED
    assert not (tmp_path / "s").exists()
