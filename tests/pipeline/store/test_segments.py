"""The index of a store: a cache that is believed only of units that are as they were."""

import json
from pathlib import Path

import numpy as np
import pytest

from coat.manifests import storage
from coat.pipeline.extraction import index_writer
from coat.pipeline.extraction.index_writer import IndexWriter
from coat.pipeline.status.status import Watch
from coat.pipeline.store.segments import read_segments
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run


@pytest.fixture
def store(make_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a segment of all its units, of which there are more than two."""
    monkeypatch.setattr(index_writer, "LEAST_UNITS", 2)
    run(make_corpus(150), tmp_path / "store")
    assert len(list(tmp_path.glob("store/*/*/index/s-*.parquet"))) == 1
    return tmp_path / "store"


def opened(store: Path) -> TargetSet:
    return TargetStore(str(store)).target_set("level")


def reads(targets: TargetSet, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Units of which the files are read, in what follows."""
    found: list[str] = []
    read_done = TargetSet.read_done

    def counted(self: TargetSet, unit: str) -> object:
        found.append(unit)
        return read_done(self, unit)

    monkeypatch.setattr(TargetSet, "read_done", counted)
    return found


def outcome(targets: TargetSet) -> tuple[object, ...]:
    """By digest: the unit, seconds and status of every row; and what is counted of them."""
    rows = targets.outcomes
    at = rows.order
    units = [rows.units[u] for u in rows.unit[at]]
    return (
        rows.units,
        rows.digests[at].tolist(),
        units,
        rows.seconds[at].tolist(),
        rows.status[at].tolist(),
        rows.count(),
    )


def test_a_segment_says_what_the_files_of_its_units_say(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as m:
        seen = reads(opened(store), m)
        indexed = opened(store)
        told, rows = outcome(indexed), dict(indexed.rows)
        done = {unit: dict(facts) for unit, facts in indexed.done.items()}
        assert not seen
    storage.remove_tree(storage.join(opened(store).url, "index"))
    alone = opened(store)
    assert outcome(alone) == told
    assert dict(alone.rows) == rows
    assert {unit: dict(facts) for unit, facts in alone.done.items()} == done
    assert list(alone.done) == list(done)


@pytest.mark.parametrize("what", ["dropped", "made again", "segment is damaged", "segment is not one"])
def test_a_unit_that_is_not_as_the_segment_says_is_read_by_itself(
    what: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = opened(store)
    unit = next(iter(targets.done))
    rows = {d for d, row in targets.rows.items() if row.unit == unit}
    (segment,) = store.glob("*/*/index/*.parquet")
    expected = {unit}
    if what in ("dropped", "made again"):
        frames = store.glob(f"*/*/units/{unit}/frames.zarr/c/0/0")
        shard = next(frames)
        shard.write_bytes(shard.read_bytes()[:-1])
        assert verify(str(store), repair=True).repaired == 1
        assert not rows & set(opened(store).rows)
        if what == "dropped":
            return
        monkeypatch.setattr(index_writer, "LEAST_UNITS", 1000)
        assert run(store.parent / "corpus" / "manifest.jsonl", store).units_done == 1
    else:
        data = segment.read_bytes()
        segment.write_bytes(data[: len(data) // 2] if what == "segment is damaged" else b"not Parquet")
        expected = set(targets.done)
    seen = reads(targets, monkeypatch)
    again = opened(store)
    assert set(again.rows) == set(targets.rows)
    assert set(seen) == expected
    assert not verify(str(store)).damages


def test_a_snapshot_is_refreshed_by_what_is_new(
    store: Path, make_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = opened(store)
    assert len(before.outcomes.digests) == 150
    monkeypatch.setattr(index_writer, "LEAST_UNITS", 1000)
    manifest = store.parent / "corpus" / "manifest.jsonl"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    more = [{**line, "id": f"more-{line['id']}"} for line in lines[:9]]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *more]))
    new = run(manifest, store).units_done
    seen = reads(before, monkeypatch)
    after = before.refreshed()
    assert len(seen) == new > 0
    assert outcome(after) == outcome(opened(store))
    assert len(after.outcomes.digests) == 159
    assert np.array_equal(after.refreshed().outcomes.digests, after.outcomes.digests)


def test_units_that_a_killed_run_left_without_a_segment_get_one(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = opened(store)
    storage.remove_tree(storage.join(targets.url, "index"))
    targets = opened(store)
    assert set(targets.done) == set(targets.not_indexed)
    writer = IndexWriter(targets)
    writer.add(targets.not_indexed)
    assert writer.close(finished=True) is None
    (part,) = read_segments(targets.url, targets.stamps, ["digest"])
    assert set(part.units) == set(targets.done)
    again = opened(store)
    assert outcome(again) == outcome(targets)
    assert not again.not_indexed


def test_a_second_look_reads_what_is_new_alone(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(str(store))
    (first,) = watch.look()
    storage.remove_tree(storage.join(opened(store).url, "index"))  # were it read again, it would be by its units' files
    seen = reads(opened(store), monkeypatch)
    assert watch.look() == [first]
    assert not seen


def test_units_are_known_without_their_rows(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = dict(opened(store).outcomes_and_units()[1])
    tables: list[str] = []
    monkeypatch.setattr(TargetSet, "read_table", lambda self, unit, columns=None: tables.append(unit))
    assert dict(opened(store).done) == expected
    assert opened(store).done.frames(expected) == {unit: done["frames"] for unit, done in expected.items()}
    assert opened(store).done.frames([]) == {}
    storage.remove_tree(storage.join(opened(store).url, "index"))
    alone = opened(store)
    assert dict(alone.done) == expected
    assert list(alone.not_indexed) == sorted(expected)
    assert not tables


def test_what_a_snapshot_hands_over_it_reads_again(store: Path) -> None:
    targets = opened(store)
    before = outcome(targets)
    held, _ = targets.with_units([])
    assert "outcomes" not in targets.__dict__
    assert outcome(targets) == before
    assert targets.outcomes is not held
