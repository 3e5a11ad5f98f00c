"""Workers that die, and rows that kill them. Two Ray workers unless a test says otherwise."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.deadline import FIRST_MOST_S, LEAST_S
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.chaos.helpers import coat, command, events, run, units_done
from tests.pipeline.extraction.test_extract import tree
from tests.pipeline.extraction.test_runs import ROOT, start, wait_for_units

TWO = Resources(workers=2)
STAGES = ["decode", "forward", "write", "before done.json", "before the rename"]


def plan_deaths(folder: Path, stage: str, times: int) -> Path:
    folder.mkdir()
    (folder / "stage").write_text(stage)
    (folder / "times").write_text(str(times))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_killed_in_any_stage_costs_nothing(stage: str, many: Path, tmp_path: Path) -> None:
    undisturbed = plan_deaths(tmp_path / "undisturbed", "forward", 0)
    run(many, tmp_path / "whole", "Killed", Resources(workers=0), undisturbed)
    faults = plan_deaths(tmp_path / "faults", stage, 2)
    summary = run(many, tmp_path / "killed", "Killed", TWO, faults)
    assert len(list(faults.glob("hit-*"))) == 2  # both deaths were died
    assert (summary.ok, summary.failed, summary.worker_deaths) == (480, 0, 2)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    done = units_done(tmp_path / "killed")
    assert len(done) == len(set(done)) == summary.units_done
    assert not verify(str(tmp_path / "killed")).damages


def test_a_unit_of_rows_that_fail_does_not_move_the_deadline_of_others(many: Path, tmp_path: Path) -> None:
    """The longest rows, which are run first, are no audio: what their units took says nothing of audio's speed."""
    rows = sorted(map(json.loads, many.read_text().splitlines()), key=lambda row: -row["duration"])
    for name in list(dict.fromkeys(row["audio_filepath"] for row in rows))[:10]:
        (many.parent / name).write_bytes(b"no audio" * 1000)
    summary = run(many, tmp_path / "store", "Level", Resources(workers=0))
    assert (summary.failed > 100, summary.ok > 300) == (True, True)
    assert LEAST_S <= summary.unit_deadline_s <= FIRST_MOST_S


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_row_that_segfaults_is_found_and_costs_no_other(poisoned: Path, tmp_path: Path) -> None:
    summary = run(poisoned, tmp_path / "store", "Segfault", TWO)
    assert (summary.ok, summary.failed, summary.reasons) == (5, 1, {"crashed": 1})
    assert [f["id"] for f in summary.failures] == ["c3"]
    assert not verify(str(tmp_path / "store")).damages


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_a_row_that_hangs_is_found_and_costs_no_other(poisoned: Path, tmp_path: Path) -> None:
    summary = run(poisoned, tmp_path / "store", "Hanging", Resources(workers=2, unit_deadline=2.0))
    assert (summary.ok, summary.failed, summary.reasons) == (5, 1, {"timeout": 1})
    assert [f["id"] for f in summary.failures] == ["c3"]
    assert not verify(str(tmp_path / "store")).damages


@pytest.mark.slow
def test_a_row_that_eats_memory_until_its_worker_is_killed_is_found(poisoned: Path, tmp_path: Path) -> None:
    memory = psutil.virtual_memory()
    if memory.available < 8 * 2**30:
        pytest.skip("less than 8 GB of free memory")
    used = (memory.total - memory.available + 4 * 2**30) / memory.total  # where Ray's monitor kills
    ray = {"RAY_memory_usage_threshold": f"{used:.3f}", "RAY_memory_monitor_refresh_ms": "50"}
    run_ = subprocess.run(
        [*command(poisoned, tmp_path / "store", "Greedy", "--workers", "1", "--json")],
        cwd=ROOT,
        env={**os.environ, **ray},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert run_.returncode == 3, run_.stderr
    rows = TargetStore(str(tmp_path / "store")).target_set("greedy").rows.values()
    assert {r.id: r.reason for r in rows if r.status != "ok"} == {"c3": "oom"}
    assert len(rows) == 6


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("workers", [0, 2])
def test_want_of_gpu_memory_halves_the_batch_and_is_told(workers: int, poisoned: Path, tmp_path: Path) -> None:
    run(poisoned, tmp_path / "store", "CudaScarce", Resources(workers=workers))
    shown = coat(command(poisoned, tmp_path / "other", "CudaScarce", "--workers", "0"))
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"memory ran out; the batch budget was halved \d times", shown.stdout)
    assert len(TargetStore(str(tmp_path / "store")).target_set("cudascarce")) == 6


@pytest.mark.slow
def test_a_crash_of_this_process_is_healed_by_the_next_run(poisoned: Path, tmp_path: Path) -> None:
    died = coat(command(poisoned, tmp_path / "store", "Segfault", "--workers", "0"))
    assert died.returncode == -signal.SIGSEGV
    healed = coat(command(poisoned, tmp_path / "store", "Segfault"))
    assert healed.returncode == 3, healed.stderr  # a row failed
    assert "an earlier run died with" in healed.stderr
    rows = TargetStore(str(tmp_path / "store")).target_set("segfault").rows.values()
    assert {r.id: r.reason for r in rows if r.status != "ok"} == {"c3": "crashed"}


def test_a_row_that_hangs_in_this_process_ends_the_run_with_advice(poisoned: Path, tmp_path: Path) -> None:
    hung = coat(command(poisoned, tmp_path / "store", "Hanging", "--workers", "0", "--unit-deadline", "3"))
    assert hung.returncode == 1
    assert "with --workers 1 the row is found" in hung.stderr
    assert "Traceback" not in hung.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_drops_what_it_has_in_hand(
    number: signal.Signals, workers: str, many: Path, tmp_path: Path
) -> None:
    arguments = command(many, tmp_path / "store", "Killed", "--workers", workers)
    arguments += ["--checkpoint", str(plan_deaths(tmp_path / "undisturbed", "forward", 0))]
    process = start(arguments)
    wait_for_units(tmp_path / "store", 2, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert not verify(str(tmp_path / "store")).damages
    assert not list(tmp_path.glob("store/*/*/running/*"))
    assert [e["why"].split(":")[0] for e in events(tmp_path / "store", "stopped")] == ["Interrupted"]
    again = coat(arguments)
    assert again.returncode == 0, again.stderr
    assert not list(tmp_path.glob("store/*/*/building/*"))
    done = units_done(tmp_path / "store")
    assert len(done) == len(set(done))
    assert len(TargetStore(str(tmp_path / "store")).target_set("killed")) == 480


def test_a_second_interrupt_does_not_wait_for_a_batch_that_hangs(poisoned: Path, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    process = start(command(poisoned, tmp_path / "store", "Hanging", "--workers", "0", "--checkpoint", str(hangs)))
    while not hangs.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)  # for the batch
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "Traceback" not in errors
