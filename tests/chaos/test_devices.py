"""Devices that give up. Faults that last (torch's own errors) are no outcome of a row; want of memory is dealt with."""

import re
from pathlib import Path

import pytest

from coat.manifests import RunError
from coat.manifests.errors import DeviceFault
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from coat.pipeline.worker.budget import CLOSE
from tests.chaos.helpers import coat, command, run
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run as run_here

HERE = Resources(workers=0)


def test_a_lost_device_ends_a_run_in_this_process_with_advice(poisoned: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceFault, match=r"^[^\n]*illegal memory access[^\n]*--workers 1[^\n]*$"):
        run(poisoned, tmp_path / "store", "Sticky", HERE)
    assert not list((tmp_path / "store").rglob("done.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_row_that_breaks_the_device_is_found_and_costs_no_other(poisoned: Path, tmp_path: Path) -> None:
    summary = run(poisoned, tmp_path / "store", "Sticky", Resources(workers=1))
    assert (summary.ok, summary.failed, summary.reasons) == (5, 1, {"device": 1})
    assert [f["id"] for f in summary.failures] == ["c3"]
    assert summary.worker_deaths >= 2
    assert not verify(str(tmp_path / "store")).damages


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_device_that_breaks_once_costs_a_worker_and_no_row(poisoned: Path, tmp_path: Path) -> None:
    (tmp_path / "once").mkdir()
    summary = run(poisoned, tmp_path / "store", "StickyOnce", Resources(workers=1), tmp_path / "once")
    assert (summary.ok, summary.failed, summary.worker_deaths) == (6, 0, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_the_only_device_is_broken(poisoned: Path, tmp_path: Path) -> None:
    """Each new worker loses it at once: no row is judged by it."""
    (tmp_path / "gathering").mkdir()
    (tmp_path / "gathering" / "workers").write_text("1")
    (tmp_path / "gathering" / "loads").write_text("1")
    (tmp_path / "gathering" / "broken").touch()
    with pytest.raises(RunError, match=r"^[^\n]*ECC error[^\n]*5 workers one after the other[^\n]*$"):
        run(poisoned, tmp_path / "store", "Gathered", Resources(workers=1), tmp_path / "gathering")
    assert not list((tmp_path / "store").rglob("done.json"))


def test_memory_of_a_failed_pass_is_free_before_the_next_one(make_corpus: Corpus, tmp_path: Path) -> None:
    """And the batch grows again, up to what fits: 6 s."""
    manifest, told = make_corpus(160), tmp_path / "told"
    told.mkdir()
    summary = run(manifest, tmp_path / "store", "Hoarder", HERE, told)
    assert (summary.ok, summary.failed) == (160, 0)
    assert 0 < summary.halvings < 10
    assert summary.batch_seconds is not None
    passes = [tuple(map(int, line.split())) for line in (told / "passes").read_text().splitlines()]
    assert all(alive == wanted for wanted, alive in passes)  # nothing of an earlier pass is alive
    assert all(wanted <= 6 * 16000 for wanted, _ in passes[len(passes) // 2 :])  # what failed is not tried again
    assert 5.0 < summary.batch_seconds <= 6.0 * CLOSE
    run_here(manifest, tmp_path / "plain", "Level")
    found, plain = (TargetStore(str(tmp_path / n)).target_set(e) for n, e in (("store", "hoarder"), ("plain", "level")))
    for i in range(160):
        assert found.read(f"c{i}").frames.tobytes() == plain.read(f"c{i}").frames.tobytes()


def test_the_command_says_what_the_batch_came_to(make_corpus: Corpus, tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()
    arguments = ["--workers", "0", "--checkpoint", str(told)]
    shown = coat(command(make_corpus(20), tmp_path / "store", "Hoarder", *arguments))
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"the batch budget was halved \d+ times and came to [\d.]+ s of audio", shown.stdout)
