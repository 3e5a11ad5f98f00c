"""A store and a manifest on S3 whose requests are refused, slow, and cut off."""

import os
import re
import signal
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from coat.manifests import InputError, RunError, storage
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.extraction.listeners import NullListener
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.store.builds import builds_folder
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import commit_unit
from coat.pipeline.store_checks import verification
from coat.pipeline.store_checks.verification import verify
from tests.chaos.s3 import Fault, FaultyS3, make_bucket
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run, tree
from tests.pipeline.extraction.test_runs import start

WRITER = re.compile(r"w-[0-9a-f]{12}/")  # the folder of a unit's writer
LEVEL = ["tests.pipeline.experts:Level"]


@pytest.fixture
def bucket(s3: FaultyS3) -> str:
    name = f"b{uuid.uuid4().hex}"
    make_bucket(name)
    return f"s3://{name}"


@pytest.fixture
def corpus(make_corpus: Corpus) -> Path:
    """96 rows over 12 files: four units."""
    manifest = make_corpus(12)
    rows = manifest.read_text().splitlines()
    manifest.write_text("".join(r.replace('"id": "c', f'"id": "k{k}-c') + "\n" for k in range(8) for r in rows))
    return manifest


def put_corpus(manifest: Path, bucket: str) -> str:
    for path in manifest.parent.rglob("*"):
        if path.is_file():
            storage.write_bytes(f"{bucket}/corpus/{path.relative_to(manifest.parent)}", path.read_bytes())
    return f"{bucket}/corpus/{manifest.name}"


def extract_command(manifest: str, store: str) -> list[str]:
    where = ["--manifest", manifest, "--store", store, "--workers", "0"]
    return [sys.executable, "-m", "coat", "extract", "--expert", *LEVEL, *where]


def extract_s3(manifest: str, bucket: str, workers: int = 0, patience: float = 30.0) -> Summary:
    resources = Resources(workers=workers, patience_s=patience)
    (summary,) = extract(manifest, f"{bucket}/store", LEVEL, resources=resources)
    return summary


def tree_s3(bucket: str) -> dict[str, bytes]:
    """As `tree`, of the store in a bucket."""
    tells_time = re.compile("done.json$|/runs/|/running/")  # the time, and what runs say of themselves
    found = {n: data for n, data in files_s3(bucket).items() if not tells_time.search(n)}
    whole = {WRITER.sub("", n): data for n, data in found.items()}
    assert len(whole) == len(found)  # of one writer a unit
    return whole


def files_s3(bucket: str) -> dict[str, bytes]:
    """Of the store, by their paths in it."""
    names = [f.name for f in storage.list_files(f"{bucket}/store")]
    return {name: storage.read_bytes(f"{bucket}/store/{name}") for name in names}


FAULTS = {
    "refused": [
        Fault(500, skip=5, times=3),
        Fault(500, "PUT", "zarr", times=2),
        Fault(500, "GET", "flac", times=4),
        Fault(503, "PUT", "parquet", times=3),
        Fault(503, "GET", skip=9, times=5),
    ],
    "slow and cut": [
        Fault("slow", skip=3, times=4),
        Fault("cut", "PUT", "zarr/c/", times=2),
        Fault("cut", "PUT", "done.json", skip=1),
        Fault("cut", "GET", "flac", times=3),
        Fault("cut", "GET", "manifest"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_run_through_faults_ends_with_the_bytes_of_a_local_one(
    name: str, bucket: str, s3: FaultyS3, corpus: Path, tmp_path: Path
) -> None:
    run(corpus, tmp_path / "store")
    remote = put_corpus(corpus, bucket)
    s3.faults += [Fault(f.kind, f.method, f.path, f.skip, f.times) for f in FAULTS[name]]
    summary = extract_s3(remote, bucket)
    assert (summary.ok, summary.failed) == (96, 0)
    assert all(f.struck == f.times for f in s3.faults)
    assert tree_s3(bucket) == tree(tmp_path / "store")
    assert not verify(f"{bucket}/store").damages
    assert extract_s3(remote, bucket).units_done == 0


def test_frames_are_read_through_faults_and_never_taken_for_damage(
    bucket: str, s3: FaultyS3, corpus: Path, tmp_path: Path
) -> None:
    run(corpus, tmp_path / "store")
    extract_s3(str(corpus), bucket)
    faults = [Fault(500, "GET", "zarr/c/", times=2), Fault("cut", "GET", "zarr/c/"), Fault(503, "GET", "parquet")]
    s3.faults += faults
    assert not verify(f"{bucket}/store").damages
    assert all(f.struck == f.times for f in faults)
    s3.faults.append(Fault("cut", "GET", "zarr/c/", times=2))
    here, there = (TargetStore(url).target_set("level") for url in (str(tmp_path / "store"), f"{bucket}/store"))
    for i in range(12):
        np.testing.assert_array_equal(there.read(f"k3-c{i}").frames, here.read(f"k3-c{i}").frames)
    assert s3.faults[-1].struck == 2


def test_done_json_is_put_after_all_else_of_its_unit(bucket: str, s3: FaultyS3, corpus: Path) -> None:
    s3.log.clear()
    extract_s3(put_corpus(corpus, bucket), bucket)
    puts = s3.puts("/units/")
    units = {p.split("/units/")[1].split("/")[0] for p in puts}
    assert len(units) > 2
    for unit in units:
        of_unit = [WRITER.sub("", p.split(f"{unit}/")[1]) for p in puts if f"/{unit}/" in p]
        assert sorted(of_unit[:-1]) == ["frames.zarr/c/0/0", "frames.zarr/zarr.json", "rows.parquet"]
        assert of_unit[-1] == "done.json"


def test_a_large_shard_is_put_at_once(bucket: str) -> None:
    """No multipart upload, of which a kill would leave parts that nobody sees and somebody pays."""
    frames_ND = np.ones((60_000, 1000), np.float16)  # 120 MB; obstore would cut it at 5 MB
    storage.write_bytes(f"{bucket}/set/spec.json", b"{}")
    commit_unit(f"{bucket}/set", "u-1", frames_ND, [], {})
    (info,) = (f for f in storage.list_files(f"{bucket}/set/units/u-1") if f.name.endswith("frames.zarr/c/0/0"))
    assert info.size > frames_ND.nbytes
    assert "-" not in info.stamp  # what a multipart upload leaves in it


def test_damage_on_s3_is_found_dropped_and_made_again(bucket: str, corpus: Path, tmp_path: Path) -> None:
    store = f"{bucket}/store"
    run(corpus, tmp_path / "whole")
    extract_s3(str(corpus), bucket)
    shard = min(f.name for f in storage.list_files(store) if "/c/" in f.name)
    storage.write_bytes(f"{store}/{shard}", storage.read_bytes(f"{store}/{shard}")[:-8])
    (found,) = verify(store, repair=True).damages
    assert found.unit
    assert found.unit in shard
    assert extract_s3(str(corpus), bucket).units_done == 1
    assert tree_s3(bucket) == tree(tmp_path / "whole")
    assert not verify(store).damages


@pytest.mark.parametrize(("status", "method", "path"), [(403, ".*", ""), (403, "PUT", "store/")])
def test_a_refusal_is_one_line_at_once(
    status: int, method: str, path: str, bucket: str, s3: FaultyS3, corpus: Path
) -> None:
    remote = put_corpus(corpus, bucket)
    s3.faults.append(Fault(status, method, path, times=1000))  # type: ignore[arg-type]
    started = time.monotonic()
    with pytest.raises((InputError, RunError)) as raised:
        extract_s3(remote, bucket)
    assert time.monotonic() - started < 10
    message = str(raised.value)
    assert bucket in message
    assert re.search("access|denied|forbidden", message, re.IGNORECASE)
    assert "\n" not in message


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_one_line_at_once(corpus: Path) -> None:
    started = time.monotonic()
    with pytest.raises((InputError, RunError), match=r"^s3://nobodys/[^\n]*$"):
        extract_s3(str(corpus), "s3://nobodys")
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_an_outage_that_lasts_ends_the_run_and_fails_no_row(bucket: str, s3: FaultyS3, corpus: Path) -> None:
    remote = put_corpus(corpus, bucket)
    s3.faults.append(Fault(500, "GET", "audio/c7", times=1000))
    with pytest.raises(RunError, match=r"^[^\n]*run again[^\n]*$"):
        extract_s3(remote, bucket)
    s3.faults.clear()
    summary = extract_s3(remote, bucket)
    assert (summary.ok, summary.failed) == (96, 0)
    assert not verify(f"{bucket}/store").damages


class Mends(NullListener):
    """Ends a store's faults once a worker gave a unit up."""

    def __init__(self, s3: FaultyS3) -> None:
        self.s3, self.lines = s3, list[str]()

    def say(self, line: str) -> None:
        if "which another worker tries" in line:
            self.lines.append(line)
            self.s3.faults.clear()


@pytest.mark.slow
def test_one_request_out_of_retries_is_tried_by_another_worker(bucket: str, s3: FaultyS3, corpus: Path) -> None:
    rows = corpus.read_text().splitlines(keepends=True)
    others = [row for row in rows if "audio/c7.flac" not in row]
    corpus.write_text("".join([*others, next(row for row in rows if "audio/c7.flac" in row)]))  # one unit has it
    remote = put_corpus(corpus, bucket)
    s3.faults.append(Fault(500, "GET", "audio/c7", times=1000))
    mends = Mends(s3)
    resources = Resources(workers=2, patience_s=30.0)
    (summary,) = extract(remote, f"{bucket}/store", LEVEL, resources=resources, listener=mends)
    assert (summary.ok, summary.failed, summary.put_aside) == (len(others) + 1, 0, [])
    (line,) = mends.lines
    assert "audio/c7.flac: the store does not answer" in line
    assert not verify(f"{bucket}/store").damages


def test_rights_that_return_soon_cost_nothing(bucket: str, s3: FaultyS3, corpus: Path) -> None:
    remote = put_corpus(corpus, bucket)
    s3.faults.append(Fault(403, "GET", "audio/", skip=3, times=5))
    summary = extract_s3(remote, bucket, patience=120.0)
    assert s3.faults[0].struck == 5
    assert (summary.ok, summary.failed) == (96, 0)


def test_rights_that_expire_end_the_run_and_fail_no_row(
    bucket: str, s3: FaultyS3, corpus: Path, tmp_path: Path
) -> None:
    run(corpus, tmp_path / "store")
    remote = put_corpus(corpus, bucket)
    s3.faults.append(Fault(403, "GET", "audio/", skip=9, times=1000))
    with pytest.raises(RunError, match=r"^[^\n]*audio/c\d+.flac: cannot be read here[^\n]*$"):
        extract_s3(remote, bucket, patience=1.0)
    s3.faults.clear()
    found = TargetStore(f"{bucket}/store").target_set("level")
    assert {row.status for row in found.rows.values()} <= {"ok"}
    assert len(found) < 96
    summary = extract_s3(remote, bucket)
    assert (summary.ok, summary.failed) == (96, 0)
    assert tree_s3(bucket) == tree(tmp_path / "store")


def test_a_bucket_of_audio_that_is_not_there_is_no_missing_audio(bucket: str, corpus: Path) -> None:
    remote = put_corpus(corpus, bucket)
    storage.write_bytes(remote, storage.read_bytes(remote).replace(b'"audio/', b'"s3://nobodys/audio/'))
    with pytest.raises(RunError, match=r"^[^\n]*is it mounted here[^\n]*--accept-missing[^\n]*$"):
        extract_s3(remote, bucket, patience=0.2)
    assert not [path for path in tree_s3(bucket) if "/units/" in path]


@pytest.mark.slow
def test_files_of_a_store_are_asked_for_at_once_and_once(bucket: str, s3: FaultyS3, make_corpus: Corpus) -> None:
    """Those of four batches, of one or two clips each, before any is answered; one thread decodes."""
    manifest = put_corpus(make_corpus(12), bucket)
    held = Fault("wait", "GET", "[.]flac", times=12)
    s3.faults.append(held)
    before, deadline = len(s3.log), time.monotonic() + 50
    with ThreadPoolExecutor(1) as pool:
        resources = Resources(workers=0, decode_threads=1)
        running = pool.submit(extract, manifest, f"{bucket}/store", LEVEL, resources=resources)
        while held.struck < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        asked = held.struck
        s3.go_on.set()
        (summary,) = running.result()
    assert (asked >= 4, summary.ok) == (True, 12)
    own = bucket.removeprefix("s3://")  # runs of earlier tests that were stopped may still ask for theirs
    asked_for = [path for method, path, _ in s3.log[before:] if method == "GET" and ".flac" in path and own in path]
    assert len(asked_for) == 12


def test_a_driver_killed_while_it_puts_leaves_no_done_json_without_data(
    bucket: str, s3: FaultyS3, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, tmp_path / "store")
    remote = put_corpus(corpus, bucket)
    s3.log.clear()
    hold = Fault("hold", "PUT", "rows.parquet", skip=1)  # the second unit's frames are there, its rows are not
    s3.faults.append(hold)
    process = start(extract_command(remote, f"{bucket}/store"))
    deadline = time.monotonic() + 60
    while not hold.struck:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = {p.split("/units/")[1] for p in s3.puts("done.json")}
    data = {p.split("/units/")[1] for p in s3.puts("frames.zarr/c/0/0")}
    half_put = {d.split("/")[0] for d in data} - {d.split("/")[0] for d in done}
    assert len(done) < len(data)  # it died between the two
    assert not [d for d in verify(f"{bucket}/store").damages if "no done.json" not in d.message]

    s3.faults.clear()
    summary = extract_s3(remote, bucket)
    assert (summary.ok, summary.units_done) == (96, 4 - len(done))
    assert not verify(f"{bucket}/store").damages  # while a writer may be alive, its keys are not taken for damage
    assert not builds_folder(f"{bucket}/store").exists()
    monkeypatch.setattr(verification, "LEFTOVER_S", 0.0)
    left = verify(f"{bucket}/store", repair=True).damages
    assert {damage.unit for damage in left} >= half_put > set()
    assert all("of a writer that died" in damage.message for damage in left)
    assert tree_s3(bucket) == tree(tmp_path / "store")
    assert not verify(f"{bucket}/store").damages


@pytest.mark.slow
def test_ray_workers_write_to_s3_through_faults(bucket: str, s3: FaultyS3, corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "store")
    remote = put_corpus(corpus, bucket)
    s3.faults += [Fault(500, "PUT", "units", times=2), Fault("cut", "GET", "flac", skip=2, times=3)]
    summary = extract_s3(remote, bucket, workers=2)
    assert (summary.ok, summary.failed) == (96, 0)
    assert tree_s3(bucket) == tree(tmp_path / "store")
    assert not verify(f"{bucket}/store").damages
