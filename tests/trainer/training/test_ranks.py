"""Ranks that are killed, that fail, and that are started by each launcher: the run is the same in the end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from coat.trainer import TrainConfig, load_run
from coat.trainer.run_folder import read_rows
from tests.disks import mounted, remount
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.training.processes import (
    count_shards,
    launch,
    run_ranks,
    save_gradients,
    train_and_die,
    train_offloaded,
    train_sharded,
)
from tests.trainer.training.test_loop import assert_equal_runs, rows_of, weights_of


def short_run(student: Path, shards: Path, out: Path, ranks: int, **parts: Any) -> TrainConfig:
    data = {"batch_tokens": 200 if ranks == 1 else None, "workers": 1}
    run = {"accumulate": 2, "save_every": 2, "log_every": 1}
    return toy_config(student, shards, out, steps=8, run=run, data=data, **parts)


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
        said = (
            f"RunError: {step}6 was not written (No space left on device); step-00000004 is kept; "
            "make room, and the same command goes on from there"
        )
        assert sorted(log.read_text().splitlines()) == [f"rank 0: {said}", f"rank 1: {said}"]
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


def test_two_ranks_have_the_gradient_of_one_that_accumulates(student_dir: Path, tmp_path: Path) -> None:
    """Each rank has one shard of two samples; alone, one rank passes over both shards in a step."""
    samples = [toy_sample(i, 0.4 + 0.2 * i) for i in range(4)]
    del samples[2]["targets"]["pitch"]
    samples[3]["meta"] = {}
    shards = write_shards(tmp_path / "shards", samples, per_shard=2)

    def config(name: str, accumulate: int) -> TrainConfig:
        data = {"batch_size": 2, "shuffle": 1}
        run = {"accumulate": accumulate}
        return toy_config(student_dir, shards, tmp_path / name, data=data, run=run, optim={"clip": 1e9})

    assert run_ranks(2, save_gradients, config("two", 1), tmp_path) == [0, 0]
    assert run_ranks(1, save_gradients, config("one", 2), tmp_path) == [0]
    alone = load_file(tmp_path / "alone.safetensors")
    assert sum(g.abs().sum() > 0 for g in alone.values()) > 20
    for rank in (0, 1):
        own = load_file(tmp_path / f"{rank}.safetensors")
        assert own.keys() == alone.keys()
        for name, gradient in alone.items():
            assert torch.allclose(own[name], gradient, atol=1e-5, rtol=1e-5), name


def test_torchrun_starts_lost_ranks_anew(
    student_dir: Path, shards_dir: Path, tmp_path: Path, whole_runs: dict[int, Path]
) -> None:
    (tmp_path / "config.toml").write_text(short_run(student_dir, shards_dir, tmp_path / "run", 2).to_toml())
    launch(
        tmp_path, "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m",
        "tests.trainer.training.processes", tmp_path / "config.toml", tmp_path / "log",
    )  # fmt: skip
    assert "resumed at step 4 of 8" in (tmp_path / "log").read_text().splitlines()
    assert_equal_runs(tmp_path / "run", whole_runs[2])


def test_sharded_weights_train_evaluate_save_resume_and_export_as_whole_ones(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    def config(name: str) -> TrainConfig:
        held_out = {"shards": str(shards_dir), "every": 4, "samples": 5, "answers": 3, "max_new_tokens": 2}
        lora = {"full": False, "rank": 2, "dropout": 0.1}
        optim = {"lr": 1e-2, "ema": 0.9}
        return short_run(student_dir, shards_dir, tmp_path / name, 2, lora=lora, evaluation=held_out, optim=optim)

    (tmp_path / "config.toml").write_text(config("whole").to_toml())
    fsdp = ["--num_processes", 2, "--num_machines", 1, "--use_fsdp", "--fsdp_version", 2, "--mixed_precision", "no"]
    done = launch(
        tmp_path, "accelerate.commands.launch", *fsdp, "--dynamo_backend", "no", "-m", "coat", "train",
        "--config", tmp_path / "config.toml",
    )  # fmt: skip
    assert done.stderr.count(f"finished: {tmp_path / 'whole'}") == 1
    log = tmp_path / "log"
    assert run_ranks(2, train_sharded, config("cut"), (1, 6, "step"), log)[1] == -9
    assert run_ranks(2, train_sharded, config("cut"), None, log) == [0, 0]
    assert "resumed at step 4 of 8" in log.read_text()
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")

    assert run_ranks(2, train_and_die, config("ddp"), None, log) == [0, 0]
    for ours, theirs in zip(rows_of(tmp_path / "whole"), rows_of(tmp_path / "ddp"), strict=True):
        assert (ours.pop("stage"), ours) == (theirs.pop("stage"), pytest.approx(theirs, rel=1e-4, abs=1e-6))
    figures = [read_rows(tmp_path / name / "evaluation.jsonl") for name in ("ddp", "whole")]
    assert len(figures[0]) == 2
    assert figures[0] == [pytest.approx(row, rel=1e-4) for row in figures[1]]
    ours, theirs = weights_of(tmp_path / "whole"), weights_of(tmp_path / "ddp")
    assert ours.keys() == theirs.keys()
    assert sum("lora_B" in name for name in ours) > 7
    assert sum("embed_tokens" in name for name in ours) == 1
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)
    assert load_run(tmp_path / "whole").ask((np.zeros(8000, np.float32), 16000), "?", max_new_tokens=2) is not None

    assert run_ranks(2, count_shards, config("held"), tmp_path) == [0, 0]
    held = [json.loads((tmp_path / f"held-{rank}.json").read_text()) for rank in (0, 1)]
    assert [sum(h["layers"][0] for h in held), held[0]["layers"][0]] == [
        held[0]["layers"][1],
        held[0]["layers"][1] // 2,
    ]
    assert all(h[kind][0] == h[kind][1] for h in held for kind in ("rest", "trained"))
    # Two layers, each gathered once for losses and answers together; ranks share the samples.
    assert [h["gathered"] for h in held] == [{"gathers": 2, "answers": 3, "samples": 5}] * 2


def test_offload_is_refused(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = toy_config(student_dir, shards_dir, tmp_path / "run", lora={"full": False})
    assert run_ranks(2, train_offloaded, config, log) == [1, 1]
    line = "InputError: FSDP's offload to the CPU is not done here; launch without --fsdp_offload_params"
    assert sorted(log.read_text().splitlines()) == [f"rank 0: {line}", f"rank 1: {line}"]
