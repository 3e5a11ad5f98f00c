"""Ranks that are killed, that fail, and that are started by each launcher: the run is the same in the end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coat.trainer import TrainConfig
from tests.disks import mounted, remount
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.processes import run_ranks, train_and_die
from tests.trainer.test_loop import assert_equal_runs


def short_run(student: Path, shards: Path, out: Path, ranks: int, **run: Any) -> TrainConfig:
    data = {"batch_tokens": 200 if ranks == 1 else None, "workers": 1}
    run = {"accumulate": 2, "save_every": 2, "log_every": 1, **run}
    return toy_config(student, shards, out, steps=8, run=run, data=data)


@pytest.fixture(scope="module")
def whole_runs(student_dir: Path, shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs that nothing happened to, by their number of ranks."""
    folder = tmp_path_factory.mktemp("whole")
    for ranks in (1, 2):
        config = short_run(student_dir, shards_dir, folder / str(ranks), ranks)
        assert run_ranks(ranks, train_and_die, config, None, folder / "log") == [0] * ranks
    return {ranks: folder / str(ranks) for ranks in (1, 2)}


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_is_killed_again_and_again_is_the_uninterrupted_one(
    student_dir: Path, shards_dir: Path, tmp_path: Path, whole_runs: dict[int, Path], ranks: int
) -> None:
    log, other = tmp_path / "log", ranks - 1
    deaths = [(other, 1, "step"), (0, 2, "weights"), (0, 4, "done"), (other, 5, "step"), (0, 6, "rename")]
    deaths += [(other, step, "step") for step in (7, 8)] if ranks == 1 else []
    config = short_run(student_dir, shards_dir, tmp_path / "cut", ranks)
    for death in deaths:
        codes = run_ranks(ranks, train_and_die, config, death, log)
        assert codes[death[0]] == -9, (death, codes, log.read_text())
    assert run_ranks(ranks, train_and_die, config, None, log) == [0] * ranks
    assert_equal_runs(tmp_path / "cut", whole_runs[ranks])
    resumed = [line for line in log.read_text().splitlines() if line.startswith("resumed")]
    steps = [2, 4, 4] + ([6, 6] if ranks == 1 else [])
    assert resumed == [f"resumed at step {step} of 8" for step in steps]
    assert not list((tmp_path / "cut" / "checkpoints").glob(".*"))  # of what was half written


def test_a_full_disk_and_then_a_damaged_checkpoint(
    student_dir: Path, shards_dir: Path, tmp_path: Path, whole_runs: dict[int, Path]
) -> None:
    last = whole_runs[2] / "checkpoints" / "step-00000008"
    size = sum(file.stat().st_size for file in last.iterdir())
    log = tmp_path / "log"
    with mounted(tmp_path / "disk", f"{int(2.7 * size) >> 10}k") as disk:
        run = disk / "run"
        config = short_run(student_dir, shards_dir, run, 2)
        assert run_ranks(2, train_and_die, config, None, log) == [1, 1]
        step = run / "checkpoints" / "step-0000000"
        told = (
            f"RunError: {step}6 was not written (No space left on device); step-00000004 is kept; "
            "make room, and the same command goes on from there"
        )
        assert sorted(log.read_text().splitlines()) == [f"rank 0: {told}", f"rank 1: {told}"]
        assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-00000002", "step-00000004"]

        remount(disk, f"size={10 * size}")
        newest = run / "checkpoints" / "step-00000004" / "rank-1.pt"
        newest.write_bytes(newest.read_bytes()[:-1])
        log.unlink()
        assert run_ranks(2, train_and_die, config, None, log) == [0, 0]
        assert log.read_text().splitlines() == [
            "checkpoint step-00000004 is not whole (rank-1.pt is damaged); trying the one before",
            "resumed at step 2 of 8",
        ]
        assert_equal_runs(run, whole_runs[2])


def test_what_one_rank_cannot_do_ends_all_alike(student_dir: Path, tmp_path: Path) -> None:
    samples = [toy_sample(i) for i in range(4)]
    samples[3]["audio"] = np.zeros(100, np.float32)  # of which a student hears nothing
    shards = write_shards(tmp_path / "shards", samples, per_shard=2)
    data = {"unusable": "raise", "batch_size": 2}
    log = tmp_path / "log"
    config = toy_config(student_dir, shards, tmp_path / "run", data=data)
    assert run_ranks(2, train_and_die, config, None, log) == [1, 1]
    lines = sorted(log.read_text().splitlines())
    assert [line[:8] for line in lines] == ["rank 0: ", "rank 1: "]
    assert "s003: 0.006 s gives no audio positions" in lines[0]
    assert lines[0][8:].partition(": ")[2] == lines[1][8:].partition(": ")[2]
