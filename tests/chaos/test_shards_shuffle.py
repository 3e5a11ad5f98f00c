"""Frames from an object store, shuffled through a scratch folder: the same bytes, a request a unit and group."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from coat.manifests import InputError, RunError, storage
from coat.manifests.processes import this_process
from coat.pipeline.cluster.ray_connection import connect, disconnect
from coat.pipeline.cluster.resources import Cluster
from coat.pipeline.gathering.scratch import PREFIX
from coat.pipeline.shards.build import build_shards
from coat.pipeline.statistics.compute import compute_statistics
from coat.pipeline.store.target_store import TargetStore
from tests.chaos.s3 import Fault, FaultyS3
from tests.chaos.test_s3 import bucket
from tests.disks import mounted
from tests.pipeline.extraction.test_runs import ROOT, start
from tests.pipeline.shards.test_builds import LEVELS, SHARD, command, corpus, tree_of

__all__ = ["bucket", "corpus"]

BLOCK = 60_000  # bytes, some samples: of 96 samples a block touches nearly each unit


@pytest.fixture
def remote(corpus: tuple[str, str], bucket: str) -> tuple[str, str]:
    """The same corpus with its store on S3, whose statistics are current."""
    compute_statistics(TargetStore(corpus[1]).target_set("level"))
    root = Path(corpus[1])
    for path in root.rglob("*"):
        if path.is_file():
            storage.write_bytes(f"{bucket}/store/{path.relative_to(root)}", path.read_bytes())
    return corpus[0], f"{bucket}/store"


def set_of(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree_of(out).items() if not name.endswith("recipe.json")}  # it names the store


def frame_requests(s3: FaultyS3, since: int) -> int:
    asked = [path for method, path, _ in s3.log[since:] if method == "GET"]
    done = [path for path in asked if path.endswith("done.json")]
    assert len(done) == 2 * len(set(done))  # by the plan and for the statistics: no worker asks for it
    return sum("/frames.zarr/" in path for path in asked)


@pytest.mark.parametrize(("workers", "scratch_bytes"), [(0, None), (2, None), (0, 30_000), (2, 30_000)])
def test_a_unit_is_asked_once_a_group_and_the_bytes_are_the_same(
    workers: int,
    scratch_bytes: int | None,
    corpus: tuple[str, str],
    remote: tuple[str, str],
    s3: FaultyS3,
    tmp_path: Path,
) -> None:
    """With pieces of utterances, some of which are there twice."""
    how = {"shard_size": SHARD, "max_seconds": 1.5, "weights": (1.5,)}
    build_shards(*corpus, LEVELS, str(tmp_path / "plain"), **how)  # pyright: ignore[reportArgumentType]
    units = len(TargetStore(corpus[1]).target_set("level").done)
    notes: list[str] = []
    before = len(s3.log)
    more = {"block_bytes": BLOCK, "scratch": str(tmp_path / "scratch"), "scratch_bytes": scratch_bytes}
    build_shards(*remote, LEVELS, str(tmp_path / "out"), workers=workers, on_note=notes.append, **how, **more)  # pyright: ignore[reportArgumentType]
    assert set_of(tmp_path / "out") == set_of(tmp_path / "plain")
    (note,) = notes
    (groups,) = map(int, re.findall(r"in (\d+) parts", note))
    assert (groups > 1) == (scratch_bytes is not None)
    assert frame_requests(s3, before) <= groups * units
    assert list((tmp_path / "scratch").iterdir()) == []


def test_on_ray_regions_are_objects(
    corpus: tuple[str, str], remote: tuple[str, str], s3: FaultyS3, tmp_path: Path
) -> None:
    started = connect(Cluster(workers=2))  # now that the environment says where S3 is
    build_shards(*corpus, LEVELS, str(tmp_path / "plain"), SHARD)
    units = len(TargetStore(corpus[1]).target_set("level").done)
    notes: list[str] = []
    before = len(s3.log)
    how = {"workers": 2, "ray_address": "auto", "block_bytes": BLOCK, "on_note": notes.append}
    try:
        build_shards(*remote, LEVELS, str(tmp_path / "out"), SHARD, **how)  # pyright: ignore[reportArgumentType]
    finally:
        if started:
            disconnect()
    assert "shuffled through Ray's object store" in notes[0]
    assert frame_requests(s3, before) <= units
    assert set_of(tmp_path / "out") == set_of(tmp_path / "plain")


def test_without_room_blocks_are_read_by_themselves_and_a_line_says_so(
    corpus: tuple[str, str], remote: tuple[str, str], s3: FaultyS3, tmp_path: Path
) -> None:
    build_shards(*corpus, LEVELS, str(tmp_path / "plain"), SHARD)
    notes: list[str] = []
    before = len(s3.log)
    build_shards(
        *remote, LEVELS, str(tmp_path / "out"), SHARD, block_bytes=BLOCK, scratch_bytes=0, on_note=notes.append
    )
    assert set_of(tmp_path / "out") == set_of(tmp_path / "plain")
    assert "frames are read block by block" in notes[0]
    assert "--scratch" in notes[0]
    assert frame_requests(s3, before) > 2 * len(TargetStore(corpus[1]).target_set("level").done)


@pytest.mark.slow
def test_a_build_that_is_killed_goes_on_and_its_scratch_is_swept(
    corpus: tuple[str, str], remote: tuple[str, str], tmp_path: Path
) -> None:
    build_shards(*corpus, LEVELS, str(tmp_path / "plain"), SHARD)
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    again = command(remote, out, "--workers", "2", "--block-size", str(BLOCK), "--scratch", str(scratch))
    process = start(again)
    deadline = time.monotonic() + 300
    while len(list(out.glob("building/*/shard-*.json"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    kept = {p: p.stat().st_mtime_ns for p in out.glob("*.tar") if (list(out.glob(f"building/*/{p.name}.json")))}
    assert list(scratch.iterdir()) != []
    (scratch / f"{PREFIX}{this_process()}~other").mkdir()  # of a living build
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "frames are shuffled through" in done.stderr
    assert set_of(out) == set_of(tmp_path / "plain")
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert [p.name for p in scratch.iterdir()] == [f"{PREFIX}{this_process()}~other"]


def test_a_scratch_folder_that_fills_is_named(remote: tuple[str, str], tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "40k") as disk:
        with pytest.raises(RunError, match=r"cannot hold the frames of a shuffle \(No space left.* --scratch"):
            build_shards(
                *remote,
                LEVELS,
                str(tmp_path / "out"),
                SHARD,
                block_bytes=BLOCK,
                scratch=str(disk),
                scratch_bytes=10**9,
            )
        assert list(disk.iterdir()) == []
    with pytest.raises(InputError, match="--scratch s3://b/c: expected a folder of this machine"):
        build_shards(*remote, LEVELS, str(tmp_path / "out"), SHARD, scratch="s3://b/c")


def test_a_worker_that_is_killed_in_the_shuffle_ends_the_build_with_one_line(
    remote: tuple[str, str], s3: FaultyS3, tmp_path: Path
) -> None:
    import psutil

    s3.faults.append(Fault("wait", "GET", "/frames.zarr/", times=10**6))
    process = start(
        command(
            remote, tmp_path / "out", "--workers", "2", "--block-size", str(BLOCK), "--scratch", str(tmp_path / "s")
        )
    )
    deadline = time.monotonic() + 300
    while not s3.faults[-1].struck:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for worker in psutil.Process(process.pid).children():
        if "spawn_main" in " ".join(worker.cmdline()):
            os.kill(worker.pid, signal.SIGKILL)
    s3.go_on.set()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "a worker process died" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "s").iterdir()) == []
