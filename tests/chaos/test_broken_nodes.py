"""One of two nodes cannot work: its worker is put aside, the run goes on with the other one. On all: the run stops."""

import os
from pathlib import Path
from typing import Any

import pytest

from coat.manifests import RunError
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.store_checks.verification import verify
from tests.chaos.helpers import events, other_node, run
from tests.chaos.s3 import FaultyS3, make_bucket
from tests.chaos.test_nodes import frames, hosts
from tests.disks import mounted
from tests.pipeline.extraction.test_extract import run as run_here

pytestmark = pytest.mark.slow


@pytest.fixture
def gathering(tmp_path: Path) -> Path:
    """Both workers are up before either begins: else one could do all the work."""
    folder = tmp_path / "gathering"
    folder.mkdir()
    (folder / "workers").write_text("2")
    (folder / "loads").write_text("2")
    return folder


@pytest.fixture
def address(cluster: Any) -> str:
    """Of a cluster with one node that is sound; this process is connected to it."""
    import ray

    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    return cluster.address


def two(address: str) -> Resources:
    return Resources(workers=2, ray_address=address, patience_s=1.0)


def check_went_on(summary: Summary, manifest: Path, store: Path, *words: str) -> None:
    """All is done by one worker, with the bytes of an undisturbed run; a line says what was wrong with the other."""
    assert (summary.ok, summary.failed) == (480, 0)
    (line,) = summary.put_aside
    for word in words:
        assert word in line, line
    assert "\n" not in line
    assert line.split(" ")[0].split(":")[1].isdigit()  # host:pid
    if store.exists():
        assert len(hosts(store)) == 1
        assert any(line in e["line"] for e in events(store, "said"))
        run_here(manifest, store.with_name("whole"), "Slow")
        assert frames(store) == frames(store.with_name("whole"))
        assert not verify(str(store)).damages


def test_a_node_without_the_mount(address: str, many: Path, gathering: Path, tmp_path: Path) -> None:
    with other_node(address, setup=f"mount -t tmpfs tmpfs {many.parent / 'audio'}"):
        summary = run(many, tmp_path / "store", "Gathered", two(address), gathering)
    check_went_on(summary, many, tmp_path / "store", "gave up units that went well elsewhere", "--accept-missing")


@pytest.mark.parametrize("stage", ["load", "batch"])
def test_a_node_whose_gpu_is_broken(stage: str, address: str, many: Path, gathering: Path, tmp_path: Path) -> None:
    (gathering / "loads").write_text("2" if stage == "load" else "4")  # a worker that loses its device is replaced
    with other_node(address, BROKEN_GPU=stage):
        summary = run(many, tmp_path / "store", "Gathered", two(address), gathering)
    check_went_on(summary, many, tmp_path / "store", "CUDA error")


def test_a_node_whose_temporary_folder_is_full(
    s3: FaultyS3, address: str, many: Path, gathering: Path, tmp_path: Path
) -> None:
    """Where units for an object store are built."""
    make_bucket("full-folder")
    store = "s3://full-folder/store"
    with mounted(tmp_path / "small", "1m") as small, other_node(address, TMPDIR=str(small)):
        free = os.statvfs(small)
        (small / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 4096))
        summary = run(many, store, "Gathered", two(address), gathering)
    check_went_on(summary, many, tmp_path / "none", "No space left on device")
    assert not verify(store).damages


def test_all_nodes_without_the_mount(cluster: Any, many: Path, gathering: Path, tmp_path: Path) -> None:
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    setup, line = f"mount -t tmpfs tmpfs {many.parent / 'audio'}", r"^[^\n]*--accept-missing[^\n]*same command again\)$"
    with other_node(cluster.address, setup), other_node(cluster.address, setup), pytest.raises(RunError, match=line):
        run(many, tmp_path / "store", "Gathered", two(cluster.address), gathering)
    assert not list((tmp_path / "store").rglob("done.json"))
