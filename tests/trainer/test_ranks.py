"""Ranks that are killed, that fail, and that are started by each launcher: the run is the same in the end."""

from pathlib import Path

import pytest

from coat.trainer import TrainConfig
from tests.trainer.helpers import toy_config
from tests.trainer.processes import run_ranks, train_and_die
from tests.trainer.test_loop import assert_equal_runs


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_is_killed_again_and_again_is_the_uninterrupted_one(
    student_dir: Path, shards_dir: Path, tmp_path: Path, ranks: int
) -> None:
    def config(name: str) -> TrainConfig:
        data = {"batch_tokens": 200 if ranks == 1 else None, "workers": 1}
        run = {"accumulate": 2, "save_every": 2, "log_every": 1}
        return toy_config(student_dir, shards_dir, tmp_path / name, steps=8, run=run, data=data)

    assert run_ranks(ranks, train_and_die, config("whole"), None, tmp_path / "whole.log") == [0] * ranks
    log, other = tmp_path / "cut.log", ranks - 1
    deaths = [(other, 1, "step"), (0, 2, "weights"), (0, 4, "done"), (other, 5, "step"), (0, 6, "rename")]
    deaths += [(other, step, "step") for step in (7, 8)] if ranks == 1 else []
    for death in deaths:
        codes = run_ranks(ranks, train_and_die, config("cut"), death, log)
        assert codes[death[0]] == -9, (death, codes, log.read_text())
    assert run_ranks(ranks, train_and_die, config("cut"), None, log) == [0] * ranks
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")
    resumed = [line for line in log.read_text().splitlines() if line.startswith("resumed")]
    steps = [2, 4, 4] + ([6, 6] if ranks == 1 else [])
    assert resumed == [f"resumed at step {step} of 8" for step in steps]
