"""Two extracts of one expert on one store at the same time."""

from pathlib import Path

import pytest

from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.chaos.helpers import coat, command, units_done
from tests.pipeline.extraction.test_runs import start

pytestmark = pytest.mark.slow


def test_two_runs_share_the_work_and_do_little_of_it_twice(many: Path, tmp_path: Path) -> None:
    arguments = command(many, tmp_path / "store", "Steady", "--workers", "0")
    runs = [start(arguments) for _ in range(2)]
    outcomes = [run.communicate(timeout=150) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outcomes
    assert not verify(str(tmp_path / "store")).damages
    assert len(TargetStore(str(tmp_path / "store")).target_set("steady")) == 480
    done = units_done(tmp_path / "store")
    units = set(done)
    by_run = [len(p.read_text().split('"event": "unit"')) - 1 for p in tmp_path.glob("store/*/*/runs/*.jsonl")]
    print(f"{len(units)} units; done by each run: {by_run}; twice: {len(done) - len(units)}")
    assert min(by_run) >= len(units) // 5  # both worked
    assert len(done) - len(units) <= 2  # what both began in the same instant


def test_a_run_that_finds_all_in_the_hand_of_a_dead_one_takes_it(many: Path, tmp_path: Path) -> None:
    arguments = command(many, tmp_path / "store", "Steady", "--workers", "0")
    process = start(arguments)
    while not units_done(tmp_path / "store"):
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert len(list(tmp_path.glob("store/*/*/running/*.json"))) == 1
    again = coat(arguments)
    assert again.returncode == 0, again.stderr
    assert "an earlier run died with" in again.stderr
    assert not list(tmp_path.glob("store/*/*/running/*"))
    assert len(TargetStore(str(tmp_path / "store")).target_set("steady")) == 480
