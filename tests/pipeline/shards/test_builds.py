"""Building: any number of workers, killed anywhere, two at once: the same bytes, and tars as large as was asked."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coat.manifests import InputError, Manifest, ShardIndex
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shard_checks.verification import verify_shards
from coat.pipeline.shards.build import build_shards
from coat.pipeline.shards.build_folder import BUILDING, BuildFolder
from coat.pipeline.shards.recipe import Recipe
from tests.integration.helpers import coat, forked_python
from tests.pipeline.conftest import Corpus, write_corpus
from tests.pipeline.extraction.test_runs import start

LEVELS = ["level"]
SHARD = 400_000


def tree_of(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """96 rows over 12 files, and their targets: some ten tars of SHARD."""
    root = tmp_path_factory.mktemp("corpus")
    manifest = write_corpus(root / "corpus")
    rows = manifest.read_text().splitlines()
    manifest.write_text("".join(r.replace('"id": "c', f'"id": "k{k}-c') + "\n" for k in range(8) for r in rows))
    extract(str(manifest), str(root / "store"), ["tests.pipeline.experts:Level"], resources=Resources(workers=0))
    return str(manifest), str(root / "store")


@pytest.fixture(scope="module")
def whole(corpus: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a build of it makes to which nothing happens."""
    out = tmp_path_factory.mktemp("whole") / "out"
    build_shards(*corpus, LEVELS, str(out), SHARD)
    return out


def command(corpus: tuple[str, str], out: Path, *more: str) -> list[str]:
    where = ["--manifest", corpus[0], "--store", corpus[1], "--out", str(out), "--shard-size", str(SHARD)]
    return [sys.executable, "-m", "coat", "build-shards", "--experts", "level", *where, *more]


@pytest.mark.parametrize("layout", ["joint", "sidecar"])
def test_processes_write_the_bytes_that_this_process_writes(
    layout: str, corpus: tuple[str, str], tmp_path: Path
) -> None:
    for name, workers in (("one", 0), ("two", 2)):
        out = str(tmp_path / name)
        build_shards(*corpus, LEVELS, out, SHARD, workers=workers, layout=layout)  # pyright: ignore
    assert tree_of(tmp_path / "one") == tree_of(tmp_path / "two")
    assert not verify_shards(str(tmp_path / "two")).damages


@pytest.mark.parametrize(("workers", "block_bytes"), [(0, 1), (0, 150_000), (0, 10**9), (2, 150_000)])
def test_neither_blocks_nor_workers_decide_the_bytes(
    workers: int, block_bytes: int, corpus: tuple[str, str], whole: Path, tmp_path: Path
) -> None:
    """Tars end in the middle of blocks, and take of several."""
    build_shards(*corpus, LEVELS, str(tmp_path / "out"), SHARD, workers=workers, block_bytes=block_bytes)
    assert tree_of(tmp_path / "out") == tree_of(whole)


def test_tars_are_within_5_percent_of_the_size_that_was_asked_for(make_corpus: Corpus, tmp_path: Path) -> None:
    """Of short clips: a tar is as large as its last sample lets it be."""
    manifest = make_corpus(8)
    rows = [r.split('"duration"')[0] + '"duration": 0.2, "offset": 0.0}' for r in manifest.read_text().splitlines()]
    manifest.write_text("".join(r.replace('"id": "c', f'"id": "k{k}-c') + "\n" for k in range(40) for r in rows))
    extract(str(manifest), str(tmp_path / "store"), ["tests.pipeline.experts:Level"], resources=Resources(workers=0))
    index = build_shards(str(manifest), str(tmp_path / "store"), LEVELS, str(tmp_path / "out"), SHARD)
    sizes = [s.bytes / SHARD for s in index.shards]
    assert len(sizes) > 5
    assert all(0.95 <= size <= 1.0 for size in sizes[:-1]), sizes
    assert sizes[-1] <= 1.0


def test_a_build_that_is_stopped_anywhere_goes_on_behind_its_last_tar(
    corpus: tuple[str, str], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    seen: list[str] = []

    class StopError(Exception):
        pass

    kept: dict[str, int] = {}
    for last in range(len(ShardIndex.read(str(whole)).shards)):

        def stop(built: object, last: int = last) -> None:
            seen.append(built.info.name)  # pyright: ignore[reportAttributeAccessIssue]
            if len(set(seen)) > last:
                raise StopError

        with pytest.raises(StopError):
            build_shards(*corpus, LEVELS, str(out), SHARD, on_shard=stop)
        assert not (out / "index.json").exists()
        kept = {p.name: p.stat().st_mtime_ns for p in out.glob("*.tar")}
        assert len(kept) == last + 1
    build_shards(*corpus, LEVELS, str(out), SHARD)
    assert {p.name: p.stat().st_mtime_ns for p in out.glob("*.tar")} == kept
    assert tree_of(out) == tree_of(whole)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_build_that_is_killed_is_finished_by_the_same_command(
    workers: str, corpus: tuple[str, str], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    process = start(command(corpus, out, "--workers", workers, "--block-size", "500KB"))
    deadline = time.monotonic() + 300
    while len(list(out.glob("building/*/shard-*.json"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()  # the process alone: its workers see that it is gone
    process.communicate()
    kept = {p: p.stat().st_mtime_ns for p in out.glob("*.tar") if (list(out.glob(f"building/*/{p.name}.json")))}
    assert not (out / "index.json").exists()
    coat(*command(corpus, out)[3:])
    assert tree_of(out) == tree_of(whole)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def test_what_was_being_written_at_a_kill_is_swept_and_what_others_write_is_not(
    corpus: tuple[str, str], whole: Path, tmp_path: Path
) -> None:
    """A kill between a file's bytes and its rename; the other writer may be about to rename."""
    out = tmp_path / "out"
    out.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone, here = (f".shard-000000.tar.idx~{socket.gethostname()}+{pid}~x1" for pid in (ended.pid, os.getpid()))
    for name in (gone, here):
        (out / name).write_bytes(b"half")
    build_shards(*corpus, LEVELS, str(out), SHARD)
    assert tree_of(out) == tree_of(whole) | {here: b"half"}


def test_builds_at_once_do_no_harm(corpus: tuple[str, str], whole: Path, tmp_path: Path) -> None:
    both = [start([*forked_python(), *command(corpus, tmp_path / "both")[1:]]) for _ in range(3)]
    outcomes = [(p.communicate(timeout=300), p.returncode) for p in both]
    # The later one may find the set complete, and says so.
    assert 0 in [code for _, code in outcomes], outcomes
    assert all(code == 0 or "holds a shard set already" in texts[1] for texts, code in outcomes), outcomes
    assert tree_of(tmp_path / "both") == tree_of(whole)


def test_another_recipe_waits_while_a_living_build_is_there_and_sweeps_after_a_dead_one(
    corpus: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        mine = BuildFolder(str(out), Recipe(manifests=(corpus[0],), store=corpus[1], experts=("level@00",)))
        theirs = out / BUILDING / mine.process.replace(f"+{os.getpid()}", f"+{sleeper.pid}")
        (out / BUILDING / mine.process).rename(theirs)
        with pytest.raises(InputError, match=f"process {sleeper.pid} .* builds shards with other options"):
            build_shards(*corpus, LEVELS, str(out), SHARD)
    finally:
        sleeper.send_signal(signal.SIGKILL)
        sleeper.wait()
    build_shards(*corpus, LEVELS, str(out), SHARD)
    assert not (out / BUILDING).exists()


def test_a_store_that_changed_since_the_kill_is_not_mixed_in(corpus: tuple[str, str], tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(built: object) -> None:
        raise StopError

    manifest = Path(shutil.copytree(Path(corpus[0]).parent, tmp_path / "corpus")) / Path(corpus[0]).name
    corpus = str(manifest), str(shutil.copytree(corpus[1], tmp_path / "store"))
    with pytest.raises(StopError):
        build_shards(*corpus, LEVELS, str(tmp_path / "out"), SHARD, on_shard=stop)
    manifest.write_text(manifest.read_text().replace("What is it?", "What was it?"))
    build_shards(*corpus, LEVELS, str(tmp_path / "out"), SHARD)
    build_shards(*corpus, LEVELS, str(tmp_path / "fresh"), SHARD)
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "fresh")


def test_an_index_of_every_sample(corpus: tuple[str, str], tmp_path: Path) -> None:
    index = build_shards(*corpus, LEVELS, str(tmp_path / "out"), SHARD)
    assert ShardIndex.read(str(tmp_path / "out")) == index
    rows = index.table().to_pylist()
    utterances = {u.id: u for u in Manifest.read(corpus[0])}
    assert {r["id"] for r in rows} == utterances.keys()
    assert all(r["digest"] == utterances[r["id"]].digest for r in rows)
    assert all(abs(r["frames.level"] - r["duration"] * 100) <= 1 for r in rows)
    for number, shard in enumerate(index.shards):
        mine = [r for r in rows if r["shard"] == number]
        assert [r["offset"] for r in mine] == [sum(r["length"] for r in mine[:i]) for i in range(len(mine))]
        assert sum(r["length"] for r in mine) + 1024 == shard.bytes
