"""Shards from S3 to S3, through requests that are refused and cut off, and after a kill."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from coat.manifests import storage
from coat.pipeline.shard_checks.verification import verify_shards
from coat.pipeline.shards.build import build_shards
from coat.pipeline.shards.sidecars import add_expert
from coat.pipeline.statistics.compute import compute_statistics
from coat.pipeline.store.target_store import TargetStore
from coat.trainer import iterate_shards
from tests.chaos.s3 import Fault, FaultyS3
from tests.chaos.test_s3 import bucket, corpus, extract_s3, put_corpus
from tests.pipeline.extraction.test_extract import run
from tests.pipeline.extraction.test_runs import start
from tests.pipeline.shards.test_builds import tree_of

__all__ = ["bucket", "corpus"]

SHARD = 1_000_000

pytestmark = pytest.mark.slow


def tree_s3(url: str) -> dict[str, bytes]:
    return {f.name: storage.read_bytes(f"{url}/{f.name}") for f in storage.list_files(url)}


def without_places(tree: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in tree.items() if not name.endswith("recipe.json")}  # they name where inputs lie


def test_shards_on_s3_are_those_on_disk_through_faults(bucket: str, s3: FaultyS3, corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "store")
    remote = put_corpus(corpus, bucket)
    extract_s3(remote, bucket)
    build_shards(str(corpus), str(tmp_path / "store"), ["level"], str(tmp_path / "out"), SHARD)
    faults = [
        Fault(500, "GET", "flac", skip=3, times=2),
        Fault("cut", "GET", "zarr/c/", skip=1),
        Fault("cut", "PUT", "tar$", skip=1),
        Fault(503, "PUT", "index.json"),
        Fault(503, "GET", "parquet"),
    ]
    s3.faults += faults
    out = f"{bucket}/out"
    build_shards(remote, f"{bucket}/store", ["level"], out, SHARD)
    assert all(f.struck == f.times for f in faults)
    assert without_places(tree_s3(out)) == without_places(tree_of(tmp_path / "out"))
    assert s3.puts("/out/")[-1].endswith("index.json")
    assert not verify_shards(out).damages
    assert len(list(iterate_shards(out))) == 96

    storage.remove(f"{out}/shard-000001.tar")
    assert verify_shards(out, repair=True).repaired == 1
    assert without_places(tree_s3(out)) == without_places(tree_of(tmp_path / "out"))


def test_a_unit_is_asked_once_and_a_long_file_too(bucket: str, s3: FaultyS3, corpus: Path) -> None:
    """96 samples, shuffled, which are spans of 12 files."""
    remote = put_corpus(corpus, bucket)
    extract_s3(remote, bucket)
    units = len(TargetStore(f"{bucket}/store").target_set("level").done)
    compute_statistics(TargetStore(f"{bucket}/store").target_set("level"))
    before = len(s3.log)
    build_shards(remote, f"{bucket}/store", ["level"], f"{bucket}/out", SHARD)
    asked = [path for method, path, _ in s3.log[before:] if method == "GET"]
    assert len([path for path in asked if "/frames.zarr/" in path]) <= units
    assert len([path for path in asked if path.endswith(".flac")]) == 12


def test_sidecars_on_s3(bucket: str, s3: FaultyS3, corpus: Path) -> None:
    remote = put_corpus(corpus, bucket)
    extract_s3(remote, bucket)
    from coat.pipeline.extraction.extraction import extract

    extract(remote, f"{bucket}/store", ["tests.pipeline.experts:Scarce"])
    build_shards(remote, f"{bucket}/store", ["level"], f"{bucket}/out", SHARD, layout="sidecar")
    add_expert(f"{bucket}/out", f"{bucket}/store", "scarce")
    samples = list(iterate_shards(f"{bucket}/out"))
    assert len(samples) == 96
    assert all(s.targets.keys() == {"level", "scarce"} for s in samples)
    assert not verify_shards(f"{bucket}/out").damages


def test_a_build_on_s3_that_is_killed_goes_on(bucket: str, s3: FaultyS3, corpus: Path, tmp_path: Path) -> None:
    remote = put_corpus(corpus, bucket)
    extract_s3(remote, bucket)
    build_shards(remote, f"{bucket}/store", ["level"], f"{bucket}/whole", SHARD)
    where = ["--manifest", remote, "--store", f"{bucket}/store", "--out", f"{bucket}/out", "--shard-size", str(SHARD)]
    process = start([sys.executable, "-m", "coat", "build-shards", "--experts", "level", *where])
    mine = f"/{bucket.removeprefix('s3://')}/out/"
    while len([p for p in s3.puts(f"{mine}building/") if p.endswith(".tar.json")]) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = len([p for p in s3.puts(f"{mine}building/") if p.endswith(".tar.json")])
    before = len(s3.puts(f"{mine}shard-"))
    build_shards(remote, f"{bucket}/store", ["level"], f"{bucket}/out", SHARD)
    assert tree_s3(f"{bucket}/out") == tree_s3(f"{bucket}/whole")
    again = [p for p in s3.puts(f"{mine}shard-")[before:] if p.endswith(".tar")]
    assert len(again) == len([p for p in tree_s3(f"{bucket}/out") if p.endswith(".tar")]) - finished
