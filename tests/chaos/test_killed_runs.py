"""Whole runs that are killed, interrupted, or poisoned, and then go on. The command line is run as a user runs it."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.integration.helpers import coat
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run, tree
from tests.pipeline.extraction.test_runs import command, start, wait_for_units


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_driver_killed_in_the_middle_leaves_a_store_that_ends_as_if_undisturbed(
    workers: str, many: Path, tmp_path: Path
) -> None:
    run(many, tmp_path / "whole", "Slow")
    arguments = command(many, tmp_path / "killed", "Slow", "--workers", workers)
    process = start(arguments)
    wait_for_units(tmp_path / "killed", 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    left = len(list((tmp_path / "killed").glob("*/*/units/*/done.json")))
    whole = len(list((tmp_path / "whole").glob("*/*/units/*/done.json")))
    assert 2 <= left < whole

    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "killed").glob("*/*/units/*/done.json")}
    coat(*command(many, tmp_path / "killed", "Slow")[3:])
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert {p: p.stat().st_mtime_ns for p in kept} == kept  # what was done was not done again
    assert not verify(str(tmp_path / "killed")).damages


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_goes_on_when_asked(number: signal.Signals, many: Path, tmp_path: Path) -> None:
    arguments = command(many, tmp_path / "store", "Slow", "--workers", "0")
    process = start(arguments)
    wait_for_units(tmp_path / "store", 1, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert not verify(str(tmp_path / "store")).damages
    again = coat(*arguments[3:])
    assert "rows are done already" in again.stderr
    assert len(TargetStore(str(tmp_path / "store")).target_set("slow")) == 480


@pytest.mark.usefixtures("ray_here")
def test_a_row_that_kills_its_worker_is_found_and_costs_no_other(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(16)
    poison = np.full(16000, 1.0, np.float32)
    soundfile.write(manifest.parent / "audio" / "c7.flac", poison, 16000)
    names = ["tests.pipeline.experts:Poisoned"]
    rows = manifest.read_text().splitlines()
    start_ = rows[7].index('"duration"')
    rows[7] = rows[7][:start_] + '"duration": 1.0}'
    manifest.write_text("\n".join(rows) + "\n")
    (summary,) = extract(str(manifest), str(tmp_path / "store"), names, resources=Resources(workers=2))
    assert (summary.ok, summary.failed, summary.reasons) == (15, 1, {"crashed": 1})
    assert [f["id"] for f in summary.failures] == ["c7"]
    assert not verify(str(tmp_path / "store")).damages
