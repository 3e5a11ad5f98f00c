"""`--share-decode` under faults: what befalls one expert befalls no other, and each ends as it does alone."""

import os
import signal
import sys
import uuid
from pathlib import Path
from urllib.parse import urlparse

import pytest

from coat.manifests import RunError
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.store_checks.verification import verify
from tests.chaos.helpers import coat, events
from tests.chaos.s3 import Fault, FaultyS3, make_bucket
from tests.chaos.test_s3 import put_corpus
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run as run_here
from tests.pipeline.extraction.test_extract import tree
from tests.pipeline.extraction.test_runs import start, wait_for_units

LEVEL, SLOW, STATES = (f"tests.pipeline.experts:{name}" for name in ("Level", "Slow", "States"))


def share(manifest: Path | str, store: Path | str, *experts: str, **resources) -> list[Summary]:
    return extract(str(manifest), str(store), experts, resources=Resources(share_decode=True, **resources))


def command(manifest: Path, store: Path, workers: str) -> list[str]:
    experts = ["--expert", SLOW, "--expert", LEVEL, "--share-decode", "--workers", workers]
    where = ["--manifest", str(manifest), "--store", str(store)]
    return [sys.executable, "-m", "coat", "extract", *experts, *where]


def chaotic(expert: str) -> str:
    return f"tests.chaos.experts:{expert}"


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_driver_killed_in_the_middle_leaves_stores_that_end_as_if_undisturbed(
    workers: str, many: Path, tmp_path: Path
) -> None:
    whole, store = tmp_path / "whole", tmp_path / "killed"
    for name in ("Slow", "Level"):
        run_here(many, whole, name)
    process = start(command(many, store, workers))
    wait_for_units(store, 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = {p: p.stat().st_mtime_ns for p in store.glob("*/*/units/*/done.json")}
    assert 5 <= len(kept) < len(list(whole.glob("*/*/units/*/done.json")))
    ended = coat(command(many, store, workers))
    assert ended.returncode == 0, ended.stderr
    assert tree(store) == tree(whole)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept  # what was done was not done again
    for expert in ("slow", "level"):
        done = [e["unit"] for e in events(store, "unit") if e["expert"].lower().endswith(expert)]
        assert len(done) == len(set(done))
    assert not verify(str(store)).damages


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(("expert", "reason"), [("Segfault", "crashed"), ("Sticky", "device"), ("Hanging", "timeout")])
def test_a_row_that_kills_the_worker_of_all_is_found_and_fails_for_its_expert_alone(
    expert: str, reason: str, poisoned: Path, tmp_path: Path
) -> None:
    how = {"workers": 1 if reason == "device" else 2, "unit_deadline": 30.0 if reason == "timeout" else None}
    level, bad, states = share(poisoned, tmp_path / "store", LEVEL, chaotic(expert), STATES, **how)
    assert (bad.ok, bad.failed, bad.reasons) == (5, 1, {reason: 1})
    assert [f["id"] for f in bad.failures] == ["c3"]
    assert [(s.ok, s.failed) for s in (level, states)] == [(6, 0), (6, 0)]
    alone = tmp_path / "alone"
    run_here(poisoned, alone, "Level")
    assert tree(tmp_path / "store" / "level") == tree(alone / "level")
    assert not verify(str(tmp_path / "store")).damages


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_an_expert_that_loses_the_device_each_time_stops_the_run_though_others_do_well(
    make_corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"^[^\n]*Unlucky[^\n]*ECC error[^\n]*5 workers one after the other[^\n]*$"):
        share(make_corpus(60), tmp_path / "store", LEVEL, chaotic("Unlucky"), workers=1)
    assert not list((tmp_path / "store").glob("unlucky/*/units/*/done.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_ray_workers_write_the_bytes_that_each_expert_writes_alone(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(120)
    for name in ("Level", "States"):
        run_here(manifest, tmp_path / "alone", name)
    summaries = share(manifest, tmp_path / "ray", LEVEL, STATES, workers=2)
    assert tree(tmp_path / "ray") == tree(tmp_path / "alone")
    assert sum(s.clips_decoded for s in summaries) == sum(s.saved_clips for s in summaries) == 120
    assert all(s.units_done > 2 for s in summaries)


@pytest.fixture
def bucket(s3: FaultyS3) -> str:
    name = f"b{uuid.uuid4().hex}"
    make_bucket(name)
    return f"s3://{name}"


def gets(s3: FaultyS3) -> list[str]:
    """Paths of audio that was fetched."""
    paths = [urlparse(path).path for method, path, status in s3.log if method == "GET" and status in (200, 206)]
    return [path for path in paths if path.endswith(".flac")]


@pytest.mark.parametrize("windows", [False, True])
def test_each_object_is_fetched_once_for_all_experts(
    windows: bool, s3: FaultyS3, bucket: str, make_corpus: Corpus, tmp_path: Path
) -> None:
    """`windows`: also where rows are longer than what an expert hears at once."""
    manifest = put_corpus(make_corpus(24), bucket)
    experts = (LEVEL, STATES, "tests.pipeline.experts:Windowed" if windows else "tests.pipeline.experts:Low")
    s3.log.clear()
    alone = extract(manifest, str(tmp_path / "alone"), experts, resources=Resources(workers=0))
    fetched = gets(s3)
    assert len(fetched) == 3 * 24 == sum(s.audio_requests for s in alone)
    s3.log.clear()
    together = share(manifest, tmp_path / "together", *experts, workers=0)
    fetched = gets(s3)
    assert sorted(fetched) == sorted(set(fetched))
    assert len(fetched) == 24 == sum(s.audio_requests for s in together)
    assert sum(s.saved_requests for s in together) == 48
    assert tree(tmp_path / "together") == tree(tmp_path / "alone")


def test_rights_that_are_refused_for_longer_stop_all_experts_and_the_same_command_goes_on(
    s3: FaultyS3, bucket: str, make_corpus: Corpus, tmp_path: Path
) -> None:
    local = make_corpus(60)
    manifest, store = put_corpus(local, bucket), tmp_path / "store"
    s3.faults.append(Fault(403, "GET", "audio/", skip=9, times=100_000))
    with pytest.raises(RunError, match=r"^[^\n]*audio/c\d+.flac: cannot be read here[^\n]*$"):
        share(manifest, store, LEVEL, STATES, workers=0, patience_s=1.0)
    s3.faults.clear()
    assert [(s.ok, s.failed) for s in share(manifest, store, LEVEL, STATES, workers=0)] == [(60, 0)] * 2
    assert not verify(str(store)).damages
