"""Steps that are not finite, where a run may leave some out: they change nothing, are named, and are bounded."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from coat.manifests import RunError
from coat.trainer import TrainConfig, train
from coat.trainer.model.batch import Batch
from coat.trainer.run_folder import read_metrics
from coat.trainer.training.step.trainer import Trainer
from tests.trainer.helpers import toy_config
from tests.trainer.training.processes import run_ranks
from tests.trainer.training.test_ema import Stop, stop_at
from tests.trainer.training.test_loop import assert_equal_runs, new_run

POISONOUS = "s006"
forward = Trainer.forward


def forward_poisoned(self: Trainer, batch: Batch, model: Any) -> dict[str, Tensor]:
    """The loss of one expert is not a number in a pass that has the sample."""
    losses = forward(self, batch, model)
    return losses | {"mel": losses["mel"] * math.nan} if POISONOUS in batch.ids else losses


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "forward", forward_poisoned)


def config_of(student: Path, shards: Path, out: Path, bound: int, **run: Any) -> TrainConfig:
    """Ten samples of which one is poisonous, once and a half."""
    table = {"max_skipped_steps": bound, "save_every": 1, "keep": 100, **run}
    return toy_config(student, shards, out, steps=8, run=table, optim={"ema": 0.9})


@pytest.mark.usefixtures("poison")
def test_a_poisonous_sample_costs_its_steps_and_no_run(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    run = tmp_path / "a"
    assert train(config_of(student_dir, shards_dir, run, 2), log=lines.append).finished
    rows = read_metrics(run)
    left_out = [row for row in rows if "not_finite" in row]
    logged = {row["step"]: row for row in rows if "not_finite" not in row}
    assert sorted(logged) == list(range(1, 9))
    assert 1 <= len(left_out) <= 2
    for n, row in enumerate(left_out, 1):
        step = row["step"]
        assert (row["not_finite"], len(row["ids"]), POISONOUS in row["ids"]) == (["mel"], 2, True)
        said = f"step {step}: the loss is not finite: mel, in the pass of samples {', '.join(row['ids'])}"
        assert f"{said}; the step is left out ({n} of 2 that run.max_skipped_steps allows)" in lines
        assert logged[step]["skipped_steps"] == n
        assert not any(name in logged[step] for name in ("loss", "ce", "grad_norm"))
        before, after = (load_file(weights(run, s)) for s in (step - 1, step)) if step > 1 else ({}, {})
        assert all(torch.equal(before[name], after[name]) for name in before)
    good = next(step for step in range(2, 9) if "ce" in logged[step])
    before, after = load_file(weights(run, good - 1)), load_file(weights(run, good))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(math.isfinite(value) for row in logged.values() for value in row.values() if isinstance(value, float))


def weights(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}" / "model.safetensors"


@pytest.mark.usefixtures("poison")
def test_it_resumes_bit_for_bit_and_counts_on(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    whole, cut = (config_of(student_dir, shards_dir, tmp_path / n, 2, save_every=3) for n in ("whole", "cut"))
    train(whole)
    (first, *_) = [row["step"] for row in read_metrics(tmp_path / "whole") if "not_finite" in row]
    for step in (first, 7):
        with pytest.raises(Stop):
            train(cut, on_report=lambda report, step=step: stop_at(step, report))
    train(cut)
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.usefixtures("poison")
def test_over_the_bound_it_stops(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    stages = [{"name": "answer", "steps": 40}]
    config = config_of(student_dir, shards_dir, tmp_path / "a", 1).model_copy(
        update={"stages": toy_config(student_dir, shards_dir, tmp_path, stages=stages).stages}
    )
    with pytest.raises(
        RunError,
        match=r"step \d+: the loss is not finite: mel, in the pass of samples .*, after 1 such steps that were left "
        r"out \(run\.max_skipped_steps\); look at these samples .* is kept\)$",
    ):
        train(config)
    assert len([row for row in read_metrics(tmp_path / "a") if "not_finite" in row]) == 1


def test_a_gradient_that_is_not_finite_is_left_out_as_well(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    training = new_run(toy_config(student_dir, shards_dir, tmp_path / "a", run={"max_skipped_steps": 1}))
    training.folder.path.mkdir()
    name, parameter = next(iter(training.model.trainable().items()))
    parameter.register_hook(lambda g: g * math.inf if training.step == 2 else g)
    assert training.run().finished
    (row,) = [row for row in read_metrics(tmp_path / "a") if "not_finite" in row]
    assert (row["step"], row["not_finite"], len(row["ids"])) == (3, ["grad_norm/student"], 2), name
    assert all(torch.isfinite(p).all() for p in training.model.trainable().values())


def train_poisoned(config: TrainConfig, out: Path) -> None:
    Trainer.forward = forward_poisoned  # type: ignore[method-assign]
    try:
        train(config)
    except RunError as e:
        (out / f"error-{os.environ['RANK']}").write_text(str(e))


def test_all_ranks_leave_the_same_steps_out(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    """Though one of them alone has the sample; and over the bound all stop with one line."""
    (tmp_path / "said").mkdir()
    assert run_ranks(2, train_poisoned, config_of(student_dir, shards_dir, tmp_path / "a", 8), tmp_path / "said") == [
        0,
        0,
    ]
    left_out = [row for row in read_metrics(tmp_path / "a") if "not_finite" in row]
    assert left_out
    assert all(POISONOUS in row["ids"] and len(row["ids"]) == 2 for row in left_out)  # of the pass, not of both ranks
    assert not list((tmp_path / "said").glob("error-*"))
    assert run_ranks(2, train_poisoned, config_of(student_dir, shards_dir, tmp_path / "b", 0), tmp_path / "said") == [
        0,
        0,
    ]
    errors = {file.read_text() for file in (tmp_path / "said").glob("error-*")}
    assert len(errors) == 1
    assert f"step {left_out[0]['step']}: the loss is not finite: mel" in errors.pop()
