"""Two writers of one unit on S3, and outcomes whose writers' clocks differ."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import numpy as np
import pytest

from coat.extractors import Options
from coat.extractors.registry import create
from coat.manifests import storage
from coat.pipeline.extraction.extraction import RowSelection
from coat.pipeline.store import unit_writer
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import UnitWriter, write_spec
from coat.pipeline.store_checks.verification import verify
from tests.chaos.s3 import Fault, FaultyS3
from tests.chaos.test_s3 import bucket
from tests.pipeline.conftest import Corpus, make_corpus
from tests.pipeline.extraction.test_extract import run

__all__ = ["bucket", "make_corpus"]

IDS = ("id0", "id1")
WAIT_S = 60.0


@pytest.fixture
def set_url(bucket: str) -> str:
    spec = create("tests.pipeline.experts:Level", Options()).spec
    url = TargetStore(f"{bucket}/store").set_url(spec)
    write_spec(url, spec)
    return url


def write_unit(set_url: str, order: tuple[str, ...]) -> str:
    """The unit with its rows in this order, as two writers of different batches would have them; gives the writer."""
    frames = {identity: np.full((700, 3), i + 1, np.float16) for i, identity in enumerate(IDS)}
    rows = [
        Row("u-1", name, f"{IDS.index(name):016x}", None, 7.0, 700 * at, 700, "ok", None)
        for at, name in enumerate(order)
    ]
    with UnitWriter(set_url, "u-1", 3, "float16") as writer:
        for identity in order:
            writer.append(frames[identity])
        writer.commit(rows, {})
    return writer.writer


def check_whole(set_url: str) -> str:
    """Every row reads its own frames, and nothing is left of a second writer; gives the one that committed."""
    targets = TargetSet.open(set_url)
    for i, identity in enumerate(IDS):
        assert (targets.read(identity).frames == i + 1).all()
    assert not verify(set_url.rsplit("/", 2)[0]).damages
    folders = {f.name.split("/")[1] for f in storage.list_files(f"{set_url}/units") if f.name.count("/") > 1}
    assert folders == {targets.done.writer("u-1")}
    return targets.done.writer("u-1")


@pytest.mark.parametrize("held", ["zarr/c/", "zarr.json", "rows.parquet", "done.json"])
def test_of_two_writers_one_commits_whole(held: str, set_url: str, s3: FaultyS3) -> None:
    """The first is cut off, alive, at each of its puts, while the second writes all; then the first goes on."""
    fault = Fault("wait", "PUT", held)
    s3.faults.append(fault)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(write_unit, set_url, IDS)
        deadline = time.monotonic() + WAIT_S
        while not fault.struck:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        second = write_unit(set_url, IDS[::-1])
        s3.go_on.set()
        first.result()
    assert check_whole(set_url) == second


def test_two_writers_whose_puts_take_turns(set_url: str, s3: FaultyS3) -> None:
    """At the same time: exactly one of them commits."""
    s3.faults.append(Fault("slow", "PUT", "u-1", times=100))
    together = threading.Barrier(2)

    def write(order: tuple[str, ...]) -> str:
        together.wait()
        return write_unit(set_url, order)

    with ThreadPoolExecutor(2) as pool:
        writers = list(pool.map(write, [IDS, IDS[::-1]]))
    assert check_whole(set_url) in writers
    answers = [status for method, path, status in s3.log if method == "PUT" and path.endswith("u-1/done.json")][-2:]
    assert sorted(answers) == [200, 412]


def test_a_store_written_before_writers_had_folders_is_read(set_url: str) -> None:
    writer = write_unit(set_url, IDS)
    unit = f"{set_url}/units/u-1"
    done = storage.read_json(f"{unit}/done.json")
    for file in storage.list_files(f"{unit}/{writer}"):
        storage.write_bytes(f"{unit}/{file.name}", storage.read_bytes(f"{unit}/{writer}/{file.name}"))
    storage.remove_tree(f"{unit}/{writer}")
    old = {k: v for k, v in done.items() if k not in ("writer", "attempt", "done_xxh3")}
    storage.write_bytes(f"{unit}/done.json", storage.to_json({**old, "done_xxh3": unit_writer.done_digest(old)}))
    targets = TargetSet.open(set_url)
    assert (targets.done["u-1"]["attempt"], targets.done["u-1"]["writer"]) == (0, "")
    assert all((targets.read(identity).frames == i + 1).all() for i, identity in enumerate(IDS))
    assert not verify(set_url.rsplit("/", 2)[0]).damages


@dataclass
class ClockAhead:
    """`datetime` as a host has it whose clock is ahead."""

    by: timedelta

    def now(self, zone: tzinfo) -> datetime:
        return datetime.now(zone) + self.by


@pytest.mark.parametrize("minutes", [5, -5])
def test_a_retry_counts_whatever_the_clocks_say(
    minutes: int, make_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row fails where the clock is 5 minutes ahead, twice, and is well where it is right."""
    manifest, store = make_corpus(2), tmp_path / "store"
    audio = manifest.parent / "audio" / "c0.flac"
    whole = audio.read_bytes()
    again = RowSelection(retry_failed=True)
    audio.write_bytes(b"")
    with monkeypatch.context() as m:
        m.setattr(unit_writer, "datetime", ClockAhead(timedelta(minutes=minutes)))
        assert run(manifest, store).failed == 1
        m.setattr(unit_writer, "datetime", ClockAhead(timedelta(minutes=2 * minutes)))
        assert run(manifest, store, selection=again).failed == 1
    audio.write_bytes(whole)
    assert run(manifest, store, selection=again).ok == 2
    assert run(manifest, store).ok == 2
    targets = TargetStore(str(store)).target_set("level")
    assert len(targets.read("c0").frames) > 0
    assert [targets.done[unit]["attempt"] for unit in targets.done][-2:] == [1, 2]
    assert not verify(str(store)).damages
