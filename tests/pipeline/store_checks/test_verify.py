"""Damage: each kind is found, named, and repaired by the next extract."""

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import soundfile

from coat.manifests import InputError, Manifest, RunError
from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.extraction.extraction import RowSelection
from coat.pipeline.status.status import status
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.integration.helpers import coat
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run, tree


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def lie(path: Path, truth: str, instead: str) -> None:
    text = path.read_text()
    assert truth in text
    path.write_text(text.replace(truth, instead))


def unit_of(store: Path) -> Path:
    return sorted(store.rglob("done.json"))[0].parent


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (lambda u: flip(u / "frames.zarr" / "c" / "0" / "0", 100), "cannot be read|digest"),
    "torn shard": (lambda u: (u / "frames.zarr" / "c" / "0" / "0").write_bytes(b"torn"), "cannot be read"),
    "no shard": (lambda u: (u / "frames.zarr" / "c" / "0" / "0").unlink(), "digest"),
    "torn zarr.json": (
        lambda u: (u / "frames.zarr" / "zarr.json").write_text("{"),
        "zarr.json does not have the digest",
    ),
    "zarr.json lies": (lambda u: lie(u / "frames.zarr" / "zarr.json", '"dim"', '"din"'), "zarr.json does not have"),
    "zarr.json asks for all memory": (
        lambda u: lie(u / "frames.zarr" / "zarr.json", "512", "51200000000"),
        "zarr.json",
    ),
    "no zarr.json": (lambda u: (u / "frames.zarr" / "zarr.json").unlink(), "cannot be opened"),
    "flipped parquet": (lambda u: flip(u / "rows.parquet", 200), "digest of done.json"),
    "no parquet": (lambda u: (u / "rows.parquet").unlink(), "cannot be read"),
    "torn done.json": (lambda u: (u / "done.json").write_text('{"rows": 1'), "expected JSON"),
    "empty done.json": (lambda u: (u / "done.json").write_text("{}"), "not a whole done.json"),
    "flipped done.json": (lambda u: lie(u / "done.json", '"wait": 0', '"wait": 9'), "its own digest"),
    "done.json without data": (lambda u: shutil.rmtree(u / "frames.zarr"), "cannot be opened"),
    "done.json alone": (lambda u: [shutil.rmtree(u / "frames.zarr"), (u / "rows.parquet").unlink()], "cannot be read"),
    "no done.json": (lambda u: (u / "done.json").unlink(), "no done.json"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_repaired(name: str, make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = make_corpus(), tmp_path / "store"
    run(manifest, store)
    whole = tree(store)
    damage, message = DAMAGES[name]
    unit = unit_of(store)
    damage(unit)
    others = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file() and unit not in p.parents}

    (found,) = verify(str(store)).damages
    assert found.unit == unit.name
    assert re.search(message, found.message)

    assert verify(str(store), repair=True).repaired == 1
    assert run(manifest, store).units_done == 1
    assert tree(store) == whole
    assert {p: p.stat().st_mtime_ns for p in others} == others
    assert not verify(str(store)).damages


def test_an_edited_spec_is_refused(make_corpus: Corpus, tmp_path: Path) -> None:
    run(make_corpus(), tmp_path / "store")
    (spec,) = (tmp_path / "store").rglob("spec.json")
    spec.write_text(spec.read_text().replace('"rate_hz": 100.0', '"rate_hz": 50.0'))
    (found,) = verify(str(tmp_path / "store")).damages
    assert "not its folder's name" in found.message
    with pytest.raises(InputError, match="edited"):
        TargetStore(str(tmp_path / "store")).target_set("level")


def test_no_store_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no target sets"):
        verify(str(tmp_path / "nothing"))


def test_a_unit_whose_done_json_is_gone_is_made_again_without_repair(make_corpus: Corpus, tmp_path: Path) -> None:
    """Its folder is in the way of the rename that brings the new one."""
    manifest, store = make_corpus(), tmp_path / "store"
    run(manifest, store)
    whole = tree(store)
    (unit_of(store) / "done.json").unlink()
    assert run(manifest, store).units_done == 1
    assert tree(store) == whole
    assert not verify(str(store)).damages


@pytest.mark.parametrize("torn", ['{"rows": 1', "{}", "", "[]"])
def test_a_torn_done_json_stops_extract_and_status_with_what_to_do(
    torn: str, make_corpus: Corpus, tmp_path: Path
) -> None:
    manifest, store = make_corpus(), tmp_path / "store"
    run(manifest, store)
    (unit_of(store) / "done.json").write_text(torn)
    for call in (lambda: run(manifest, store), lambda: status(str(store))):
        with pytest.raises(RunError, match=r"done\.json.*verify --repair") as e:
            call()
        assert "\n" not in str(e.value)


def test_sources_that_changed_or_went_are_named_and_refreshed(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = make_corpus(6), tmp_path / "store"
    run(manifest, store)
    corpus = Manifest.read(str(manifest))
    assert verify(str(store), sources=corpus).changes == ()
    changed, gone = (manifest.parent / "audio" / f"c{i}.flac" for i in (2, 4))
    samples, rate = soundfile.read(changed, dtype="float32")
    soundfile.write(changed, samples[::-1], rate)
    gone.unlink()

    found = {c.id: c.message for c in verify(str(store), sources=corpus).changes}
    assert found.keys() == {"c2", "c4"}
    assert "sounds different" in found["c2"]
    assert "missing" in found["c4"]
    kept = {p: p.stat().st_mtime_ns for p in store.rglob("done.json")}

    summary = run(manifest, store, selection=RowSelection(refresh=True))
    assert (summary.ok, summary.failed) == (5, 1)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert len(list(store.rglob("done.json"))) == len(kept) + summary.units_done
    assert verify(str(store), sources=corpus).changes == ()
    assert not verify(str(store)).damages


def test_a_lost_spec_comes_back_with_the_next_extract(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = make_corpus(), tmp_path / "store"
    run(manifest, store)
    whole = tree(store)
    next(store.rglob("spec.json")).unlink()
    (found,) = verify(str(store)).damages
    assert re.search(r"no spec\.json.*coat extract", found.message)
    assert run(manifest, store).units_done == 0
    assert tree(store) == whole


def test_workers_find_sources_that_changed(many: Path, tmp_path: Path) -> None:
    """480 rows of 40 files, in two jobs."""
    store = tmp_path / "store"
    run(many, store)
    corpus = Manifest.read(str(many))
    changed, gone = (many.parent / "audio" / f"c{i}.flac" for i in (2, 4))
    samples, rate = soundfile.read(changed, dtype="float32")
    soundfile.write(changed, samples[::-1], rate)
    gone.unlink()
    by_two = partial(run_ordered, workers=2, ray_address=None)
    found = verify(str(store), sources=corpus, run_jobs=by_two)
    assert len(found.changes) == 24
    assert found == verify(str(store), sources=corpus)


def test_workers_find_what_this_process_finds(many: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(many, store)
    units = sorted(store.rglob("done.json"))
    flip(units[0].parent / "frames.zarr" / "c" / "0" / "0", 100)
    (units[1].parent / "rows.parquet").unlink()
    here = verify(str(store))
    assert {d.unit for d in here.damages} == {units[0].parent.name, units[1].parent.name}
    assert verify(str(store), run_jobs=partial(run_ordered, workers=2, ray_address=None)) == here
    assert "2 damaged units dropped" in coat("verify", store, "--workers", 2, "--repair", status=1).stdout
    assert len(list(store.rglob("done.json"))) == len(units) - 2


def test_what_is_no_target_set_is_named(tmp_path: Path) -> None:
    """A stranger's file where a set should be, and one that is a folder's name too many."""
    (tmp_path / "store" / "notes" / "todo.txt").mkdir(parents=True)
    (tmp_path / "store" / "pitch").mkdir()
    (tmp_path / "store" / "pitch" / "readme").write_text("of mine")
    found = verify(str(tmp_path / "store")).damages
    assert [(d.expert, d.fingerprint) for d in found] == [("notes", "todo.txt"), ("pitch", "readme")]
    assert all("no spec.json; not a target set" in d.message for d in found)
