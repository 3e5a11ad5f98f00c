"""The share or disk that holds the audio fails in the middle of a run, and comes back. No row is recorded as failed."""

import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest

from coat.manifests import RunError
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import RowSelection, extract
from coat.pipeline.extraction.listeners import NullListener
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from coat.pipeline.worker.report import UnitReport
from tests.chaos.helpers import units_done
from tests.disks import FailingDisk, dead_share, failing_disk
from tests.integration.helpers import coat
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import tree

LEVEL = ["tests.pipeline.experts:Level"]


class After(NullListener):
    """Does something to the machine when so many units are done."""

    def __init__(self, units: int, fault: Callable[[], object]) -> None:
        self.left, self.fault = units, fault

    def reported(self, report: UnitReport) -> None:
        self.left -= 1
        if self.left == 0:
            self.fault()


def run(manifest: Path, store: Path, listener: NullListener | None = None, patience: float = 1.0, **rows) -> Summary:
    resources, selection = Resources(workers=0, patience_s=patience), RowSelection(**rows)
    (summary,) = extract(str(manifest), str(store), LEVEL, None, resources, selection, listener)
    return summary


def check_stopped_and_goes_on(
    manifest: Path, store: Path, fault: Callable[[], object], mend: Callable[[], object]
) -> str:
    """A fault after three units ends the run; mended, the same call ends as if undisturbed. Gives the line."""
    run(manifest, store.with_name("whole"))
    with pytest.raises(RunError) as e:
        run(manifest, store, After(3, fault))
    assert "\n" not in str(e.value)
    assert not isinstance(e.value, AssertionError)
    found = TargetStore(str(store)).target_set("level")
    assert {row.status for row in found.rows.values()} == {"ok"}
    assert 0 < len(found) < 480
    mend()
    summary = run(manifest, store)
    assert (summary.ok, summary.failed) == (480, 0)
    assert tree(store) == tree(store.with_name("whole"))
    done = units_done(store)
    assert len(done) == len(set(done))
    assert not verify(str(store)).damages
    return str(e.value)


def test_a_folder_that_is_renamed_and_comes_back(many: Path, tmp_path: Path) -> None:
    audio = many.parent / "audio"
    away = audio.with_name("moved")
    line = check_stopped_and_goes_on(many, tmp_path / "store", lambda: audio.rename(away), lambda: away.rename(audio))
    assert "--accept-missing" in line


def test_a_folder_that_is_back_soon_costs_nothing(many: Path, tmp_path: Path) -> None:
    audio = many.parent / "audio"
    away = audio.with_name("moved")

    def rename() -> None:
        audio.rename(away)
        Timer(2.0, lambda: away.rename(audio)).start()

    summary = run(many, tmp_path / "store", After(2, rename), patience=120.0)
    assert (summary.ok, summary.failed) == (480, 0)
    assert audio.exists()


def test_a_folder_whose_files_are_gone_but_for_others(many: Path, tmp_path: Path) -> None:
    """A mount that went away may uncover a folder that is not empty: what was read before is not there."""
    audio = many.parent / "audio"
    away = audio.with_name("moved")

    def uncover() -> None:
        audio.rename(away)
        audio.mkdir()
        (audio / "README").write_text("nothing is mounted here")

    def mount() -> None:
        shutil.rmtree(audio)
        away.rename(audio)

    assert "is gone too" in check_stopped_and_goes_on(many, tmp_path / "store", uncover, mount)


def test_a_share_that_does_not_answer(many: Path, tmp_path: Path) -> None:
    share = ExitStack()
    with share:
        line = check_stopped_and_goes_on(
            many,
            tmp_path / "store",
            lambda: share.enter_context(dead_share(many.parent / "audio")),
            share.close,
        )
    assert "Transport endpoint is not connected" in line


def test_a_disk_that_cannot_read(many: Path, tmp_path: Path) -> None:
    """Files lie behind where the disk ends, and across it."""
    audio = many.parent / "audio"

    def fill(folder: Path) -> None:
        shutil.copytree(audio, folder, dirs_exist_ok=True)

    with failing_disk(tmp_path, fill, megabytes=8) as disk:
        shutil.rmtree(audio)
        audio.symlink_to(disk.folder)
        line = check_stopped_and_goes_on(many, tmp_path / "store", lambda: end_inside(disk), disk.heal)
    assert "Input/output error" in line


def end_inside(disk: FailingDisk) -> None:
    disk.fail(at=2**20)


def test_a_share_that_is_not_there_from_the_beginning(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(12)
    audio = manifest.parent / "audio"
    audio.rename(audio.with_name("moved"))
    audio.mkdir()
    with pytest.raises(RunError, match=r"^[^\n]*is it mounted here[^\n]*--accept-missing[^\n]*$"):
        run(manifest, tmp_path / "store", patience=0.2)
    (audio / "README").write_text("nothing is mounted here")
    with pytest.raises(RunError, match=r"^none of the \d+ files of a unit is there[^\n]*--accept-missing[^\n]*$"):
        run(manifest, tmp_path / "store", patience=0.2)
    assert not list((tmp_path / "store").rglob("done.json"))


def test_files_that_are_really_gone_are_recorded_when_that_is_said(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(12)
    shutil.rmtree(manifest.parent / "audio")
    summary = run(manifest, tmp_path / "store", accept_missing=True)
    assert summary.reasons == {"missing": 12}
    with pytest.raises(RunError, match="--accept-missing"):
        run(manifest, tmp_path / "store", patience=0.2, retry_failed=True)
    assert run(manifest, tmp_path / "store").units_done == 0  # what was recorded stays


def test_a_file_that_is_gone_among_others_is_missing(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(12)
    (manifest.parent / "audio" / "c4.flac").unlink()
    assert run(manifest, tmp_path / "store", patience=60.0).reasons == {"missing": 1}
    assert run(manifest, tmp_path / "store", retry_failed=True).reasons == {"missing": 1}


def test_other_commands_say_it_in_a_line(make_corpus: Corpus) -> None:
    """A check of the rows names each, an extract stops; none shows a traceback."""
    manifest = make_corpus(2)
    with dead_share(manifest.parent / "audio"):
        checked = coat("manifest", "validate", manifest, status=2)
        extracted = coat(
            *("extract", "--expert", *LEVEL, "--manifest", manifest, "--store", manifest.with_name("store")),
            *("--workers", "0", "--patience", "0.2"),
            status=1,
        )
    said = checked.stderr + checked.stdout
    assert len(re.findall(r"manifest.jsonl:\d: [^\n]*Transport endpoint is not connected", said)) == 2
    (line,) = extracted.stderr.strip().splitlines()
    assert "Transport endpoint is not connected" in line
