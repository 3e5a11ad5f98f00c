"""The disk under a store fails: one line, nothing half-written, and the rerun ends as if undisturbed."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from coat.manifests import InputError, RunError
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import UnitWriter, commit_unit
from coat.pipeline.store_checks.verification import verify
from tests.disks import mounted, remount
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run, tree
from tests.pipeline.extraction.test_runs import ROOT, command


def check_line(error: BaseException, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_a_full_disk_ends_the_run_with_one_line_and_the_rerun_ends_it(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(150)
    run(manifest, tmp_path / "whole")
    size = sum(len(data) for data in tree(tmp_path / "whole").values())
    with mounted(tmp_path / "disk", f"{size // 2048}k") as disk:  # half of what it takes
        store = disk / "store"
        with pytest.raises(RunError) as e:
            run(manifest, store)
        check_line(e.value, str(store), "No space left on device", "run again")
        done = {p: p.stat().st_mtime_ns for p in store.rglob("units/*/done.json")}
        assert 0 < len(done) < len(list((tmp_path / "whole").rglob("done.json")))
        assert not verify(str(store)).damages
        assert not list(store.rglob("building/*"))

        remount(disk, "size=64m")
        run(manifest, store)
        assert tree(store) == tree(tmp_path / "whole")
        assert {p: p.stat().st_mtime_ns for p in done} == done


def test_a_disk_that_fills_in_the_middle_of_a_unit_leaves_nothing_of_it(tmp_path: Path) -> None:
    frames_ND = np.ones((4096, 64), np.float32)
    with mounted(tmp_path / "disk", "2m") as disk:
        (disk / "set").mkdir()
        (disk / "set" / "spec.json").write_text("{}")
        with UnitWriter(str(disk / "set"), "u-1", 64, "float32") as writer:
            writer.append(frames_ND)
            with pytest.raises(RunError, match="No space"):
                writer.append(np.concatenate([frames_ND] * 3))
        assert sorted(p.name for p in (disk / "set").rglob("*")) == ["building", "spec.json"]
        commit_unit(str(disk / "set"), "u-2", frames_ND[:512], [], {})  # there is room again
        assert (disk / "set" / "units" / "u-2" / "done.json").exists()


def test_a_full_disk_before_the_first_unit_is_one_line(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(2)
    with mounted(tmp_path / "disk", "16k") as disk:
        (disk / "ballast").write_bytes(bytes(8192))
        with pytest.raises(RunError) as e:
            run(manifest, disk / "store")
        check_line(e.value, "No space left on device")
        assert not list(disk.rglob("done.json"))


def test_a_store_on_a_disk_that_may_only_be_read(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(4)
    run(manifest, tmp_path / "whole")
    with mounted(tmp_path / "disk", "8m") as disk:
        remount(disk, "ro")
        with pytest.raises(RunError) as e:
            run(manifest, disk / "store")
        check_line(e.value, "Read-only file system")
        remount(disk, "rw")
        rows = manifest.read_text().splitlines(keepends=True)
        (manifest.parent / "part.jsonl").write_text("".join(rows[:2]))
        run(manifest.parent / "part.jsonl", disk / "store")
        before = tree(disk / "store")
        remount(disk, "ro")
        with pytest.raises(RunError) as e:
            run(manifest, disk / "store")
        check_line(e.value, "Read-only file system")
        assert tree(disk / "store") == before
        assert not verify(str(disk / "store")).damages  # reading goes on
        remount(disk, "rw")
        assert run(manifest, disk / "store").ok == 4


def test_a_store_under_a_file_is_the_users_mistake(make_corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as e:
        run(make_corpus(2), tmp_path / "file" / "store")
    check_line(e.value, "cannot be written there", "choose another place")


@pytest.mark.parametrize("what", ["store", "spec.json"])
def test_what_is_removed_under_a_run_is_not_made_again_in_silence(
    what: str, make_corpus: Corpus, tmp_path: Path
) -> None:
    manifest, store = make_corpus(150), tmp_path / "store"
    run(manifest, tmp_path / "whole", "Slow")

    def remove() -> None:
        deadline = time.monotonic() + 60
        # Not in building/: its folders come and go, which a glob does not survive.
        while not list(store.glob("*/*/units/*/done.json")) and time.monotonic() < deadline:
            time.sleep(0.005)
        if what == "store":
            os.rename(store, tmp_path / "trash")  # at once, as `mv`; an `rm -r` may race with a unit's rename
            shutil.rmtree(tmp_path / "trash")
        else:
            next(store.rglob("spec.json")).unlink()

    remover = threading.Thread(target=remove)
    remover.start()
    with pytest.raises(RunError) as e:
        run(manifest, store, "Slow")
    remover.join()
    check_line(e.value, "spec.json", "gone", "the store", "removed")
    assert store.exists() == (what == "spec.json")
    assert not list(store.rglob("building/*"))

    assert run(manifest, store, "Slow").ok == 150
    assert tree(store) == tree(tmp_path / "whole")


@pytest.mark.slow
def test_the_command_says_it_in_one_line_and_exits_1(make_corpus: Corpus, tmp_path: Path) -> None:
    """As a user sees it: an error line at the end of stderr, no traceback."""
    manifest = make_corpus(2)
    with mounted(tmp_path / "disk", "8m") as disk:
        remount(disk, "ro")
        done = subprocess.run(
            command(manifest, disk / "store", "Level", "--workers", "0"),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_damage_of_a_unit_costs_only_that_unit(make_corpus: Corpus, tmp_path: Path) -> None:
    """Two units damaged in two ways: both named, both redone, no other touched (each kind: test_verify.py)."""
    manifest, store = make_corpus(150), tmp_path / "store"
    run(manifest, store)
    whole = tree(store)
    torn, lost = sorted(store.glob("level/*/units/*"))[:2]
    shard = torn / "frames.zarr" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    (lost / "frames.zarr" / "c" / "0" / "0").unlink()
    others = {p: p.stat().st_mtime_ns for p in store.rglob("done.json") if p.parent not in (torn, lost)}
    assert {d.unit for d in verify(str(store)).damages} == {torn.name, lost.name}
    targets = TargetStore(str(store)).target_set("level")
    (row, *_) = targets.read_rows(torn.name)
    with pytest.raises(RunError, match="verify --repair"):
        targets.read_row(row)
    assert verify(str(store), repair=True).repaired == 2
    assert run(manifest, store).units_done == 2
    assert tree(store) == whole
    assert {p: p.stat().st_mtime_ns for p in others} == others
