"""Leases of runs on other hosts, that live and that died, and what leases cost."""

import os
import threading
import time
from pathlib import Path

import pytest

from coat.manifests import storage
from coat.pipeline.extraction import lease as leases
from coat.pipeline.extraction.lease import Lease
from coat.pipeline.status.status import status
from coat.pipeline.store.target_store import TargetStore
from tests.chaos.s3 import FaultyS3
from tests.chaos.test_s3 import bucket, corpus, extract_s3, put_corpus
from tests.pipeline.conftest import Corpus, make_corpus
from tests.pipeline.extraction.test_extract import run

__all__ = ["bucket", "corpus", "make_corpus"]

ELSEWHERE = {"host": "elsewhere", "pid": 1, "started": 0.0, "beat": 1}


def lease_of(set_url: str, units: list[str], run: str = "20000101T000000-elsewhere-0") -> str:
    """As a run on another host writes it, with the beat of this moment."""
    url = storage.join(set_url, "running", f"{run}.json")
    beat = time.monotonic_ns()
    storage.write_bytes(url, storage.to_json({**ELSEWHERE, "beat": beat, "units": units, "claimed": []}))
    return url


def units_and_store(corpus: Path, store: Path) -> tuple[list[str], str]:
    """The units of a corpus, and the set of a store in which none of them is."""
    run(corpus, store)
    targets = TargetStore(str(store)).target_set("level")
    units = list(targets.done)
    storage.remove_tree(storage.join(targets.url, "units"))
    return units, targets.url


def test_the_units_of_a_run_that_died_elsewhere_are_taken_at_once(corpus: Path, tmp_path: Path) -> None:
    units, set_url = units_and_store(corpus, tmp_path / "store")
    url = lease_of(set_url, units)
    (seen,) = status(str(tmp_path / "store"))
    assert (seen.at_work, [r.in_hand for r in seen.runs]) == (True, [len(units)])
    long_ago = time.time() - 3600
    os.utime(storage.local_path(url), (long_ago, long_ago))
    (seen,) = status(str(tmp_path / "store"))
    assert (seen.at_work, [r.alive for r in seen.runs]) == (False, [False])
    summary = run(corpus, tmp_path / "store")
    assert (summary.ok, summary.units_done) == (96, len(units))
    assert not storage.exists(url)


def test_the_units_of_a_living_run_elsewhere_are_left_to_it_until_it_is_silent(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It beats for some seconds, while the other units are done; then it dies, and what it had is taken."""
    monkeypatch.setattr(leases, "LEASE_TIMEOUT_S", 4.0)
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.5)
    monkeypatch.setattr("coat.pipeline.extraction.unit_queue.HEARTBEAT_S", 0.5)
    units, set_url = units_and_store(corpus, tmp_path / "store")
    lease_of(set_url, units[:2])
    committed_while_it_lived: list[set[str]] = []
    died = threading.Event()

    def beat() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lease_of(set_url, units[:2])
            done = {p.parent.name for p in Path(set_url).glob("units/*/done.json")}
            if len(done) == len(units) - 2:
                break
            time.sleep(0.1)
        committed_while_it_lived.append({p.parent.name for p in Path(set_url).glob("units/*/done.json")})
        died.set()

    other = threading.Thread(target=beat)
    other.start()
    summary = run(corpus, tmp_path / "store")
    other.join()
    assert died.is_set()
    assert committed_while_it_lived == [set(units[2:])]
    assert (summary.ok, summary.units_done) == (96, len(units))


def test_a_run_that_began_later_keeps_what_the_older_has_not_claimed(corpus: Path, tmp_path: Path) -> None:
    _, set_url = units_and_store(corpus, tmp_path / "store")
    older, younger = Lease(set_url), Lease(set_url)
    older.run, younger.run = sorted([older.run, younger.run])
    for lease in (older, younger):
        lease.url = storage.join(lease.folder, f"{lease.run}.json")
        lease.others.run = lease.run
        lease.begin()
    assert older.claim(["a", "b"], []) == set()
    assert younger.claim(["b", "c"], []) == {"b"}
    assert older.claim(["c", "d"], ["a"]) == {"c"}
    older.release()
    assert younger.claim(["a", "d"], ["c"]) == set()


def test_leases_of_others_cost_no_request_per_unit(bucket: str, s3: FaultyS3, corpus: Path) -> None:
    """Of 20 runs elsewhere whose leases do not change each is read once, whatever the number of units."""
    remote = put_corpus(corpus, bucket)
    extract_s3(remote, bucket)
    (targets,) = TargetStore(f"{bucket}/store").target_sets()
    storage.remove_tree(storage.join(targets.url, "units"))
    for i in range(20):
        lease_of(targets.url, ["u-gone"], f"20000101T000000-elsewhere-{i}")
    s3.log.clear()
    extract_s3(remote, bucket)
    reads = [p for method, p, _ in s3.log if method == "GET" and "elsewhere" in p]
    assert len(reads) == 20


def test_the_lease_is_there_before_the_plan(
    make_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coat.pipeline.extraction import extraction

    manifest, store = make_corpus(2), tmp_path / "store"
    run(manifest, store)
    seen: list[int] = []
    make_plans = extraction.make_plans

    def watched(*arguments: object, **options: object) -> object:
        seen.append(len(list(store.glob("*/*/running/*.json"))))
        return make_plans(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(extraction, "make_plans", watched)
    assert run(manifest, store).units_done == 0
    assert seen == [1]
    assert not list(store.glob("*/*/running/*"))
