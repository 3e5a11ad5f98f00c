"""The loop: gradients do not depend on how a batch is cut, runs resume bit for bit, and tiny students learn."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from coat.manifests import InputError, RunError
from coat.trainer import TrainConfig, load_run, train
from coat.trainer.data.collator import EncodedSample
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.decoding import decode_sample
from coat.trainer.model.batch import Batch
from coat.trainer.run_folder import RunFolder, read_metrics
from coat.trainer.training.checkpointing.checkpoint_tensors import load_optimizer
from coat.trainer.training.run import TrainingRun
from tests.integration.helpers import forked_python
from tests.trainer.helpers import toy_config, toy_sample, write_shards

ROOT = Path(__file__).parents[3]
RARELY = {"save_every": 1000}
TIMES = ("steps_per_s", "samples_per_s", "tokens_per_s", "wait_share", "peak_memory_gib")


def new_run(
    config: TrainConfig, accelerator: Accelerator | None = None, log: Callable[[str], None] = lambda _: None
) -> TrainingRun:
    data, folder = DataSets.open(config.data), RunFolder(Path(config.run.out))
    return TrainingRun(config, data, folder, accelerator or Accelerator(), lambda _: None, log)


def first_items(training: TrainingRun, count: int) -> list[EncodedSample]:
    raws = islice(training.loader.stream, count)
    collator = training.loader.collator
    return [collator.encode(decode_sample(raw, collator.index), training.config.data) for raw in raws]


def first_batch(training: TrainingRun) -> Batch:
    """Of its loader, whose threads are ended here: the garbage collector may come in one of them."""
    with closing(iter(training.loader)) as batches:  # type: ignore[type-var]
        return next(batches)


def gradients(config: TrainConfig, size: int) -> dict[str, torch.Tensor]:
    """Of the first step over the same eight samples, cut into passes of `size`."""
    training = new_run(config)
    training.trainer.optimizer.step = lambda: None  # type: ignore[method-assign]
    training.trainer.optimizer.zero_grad = lambda: None  # type: ignore[method-assign]
    items = first_items(training, 8)
    batches: list[Batch] = [training.loader.collator.collate(items[i : i + size]) for i in range(0, 8, size)]
    training.trainer.step(batches)
    return {n: p.grad.clone() for n, p in training.model.trainable().items() if p.grad is not None}


@pytest.mark.parametrize("full", [True, False], ids=["full", "lora"])
def test_accumulation_never_changes_the_gradient(
    student_dir: Path, shards_dir: Path, tmp_path: Path, full: bool
) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path, lora={"full": full, "rank": 2}, optim={"clip": 1e9})
    whole = gradients(config, 8)
    assert any("trainable_tokens" in n or "embed_tokens" in n for n in whole)
    assert any(n.startswith("heads.groups.pitch") and g.abs().sum() > 0 for n, g in whole.items())
    for size in (4, 1):
        parts = gradients(config, size)
        assert parts.keys() == whole.keys()
        for name, gradient in parts.items():
            assert torch.allclose(gradient, whole[name], atol=1e-5, rtol=1e-4), name


def test_lora_trains_the_language_model_new_rows_and_heads_alone(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    training = new_run(toy_config(student_dir, shards_dir, tmp_path, lora={"full": False}))
    kinds = {
        "lora" if "lora_" in n else "rows" if "trainable_tokens" in n else n.split(".")[0]: n
        for n in training.model.trainable()
    }
    assert kinds.keys() == {"lora", "rows", "heads"}
    assert not any("audio_tower" in n for n in training.model.trainable())


def test_a_batched_loss_is_the_sum_of_single_ones(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    training = new_run(toy_config(student_dir, shards_dir, tmp_path))
    training.model.eval()
    items = first_items(training, 6)
    with torch.no_grad():
        in_one_batch = training.model(training.loader.collator.collate(items))
        alone = [training.model(training.loader.collator.collate([item])) for item in items]
    for name, value in in_one_batch.items():
        assert value.item() == pytest.approx(sum(a[name].item() for a in alone), rel=1e-4), name


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(run)]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """The student's, or its adapter's, and the heads'."""
    return {k: v for file in (run / "student").glob("*.safetensors") for k, v in load_file(file).items()} | load_file(
        run / "heads.safetensors"
    )


def assert_equal_runs(a: Path, b: Path) -> None:
    assert rows_of(a) == rows_of(b)
    one, other = weights_of(a), weights_of(b)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


SCRIPT = """
import sys, tomllib, torch
torch.set_num_threads(1)
from coat.trainer import TrainConfig, train
train(TrainConfig.read(sys.argv[1]), log=lambda line: print(line, flush=True))
"""


def start(config: TrainConfig, folder: Path) -> subprocess.Popen[str]:
    file = folder / f"{Path(config.run.out).name}.toml"
    file.write_text(config.to_toml())
    return subprocess.Popen(
        [*forked_python(), "-c", SCRIPT, str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def wait_for(check: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not check():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_terminated_run_ends_as_an_uninterrupted_one(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    """Of one that is killed: test_ranks.py."""

    def config(name: str, workers: int = 1) -> TrainConfig:
        run = {"accumulate": 2, "save_every": 7, "log_every": 3}
        return toy_config(student_dir, shards_dir, tmp_path / name, steps=40, run=run, data={"workers": workers})

    process = start(config("cut"), tmp_path)
    cut = tmp_path / "cut"
    wait_for(lambda: any((cut / "checkpoints").glob("step-*")), process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=300)[0]
    assert not (cut / "done.json").exists(), output
    assert process.returncode == 0, output
    lines: list[str] = []
    result = train(config("cut", workers=3), log=lines.append)
    assert any(line.startswith("resumed at step") for line in lines)
    assert result.finished
    train(config("whole"))
    assert_equal_runs(cut, tmp_path / "whole")


def test_a_broken_newest_checkpoint_is_named_and_the_one_before_is_used(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    first = toy_config(student_dir, shards_dir, tmp_path / "a")
    train(first)
    train(toy_config(student_dir, shards_dir, tmp_path / "b"))
    run = tmp_path / "a"
    (run / "done.json").unlink()  # as if it had stopped just before its end
    newest = run / "checkpoints" / "step-00000006" / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    lines: list[str] = []
    train(first, log=lines.append)
    assert "checkpoint step-00000006 is not whole (model.safetensors is damaged); trying the one before" in lines
    assert "resumed at step 4 of 6" in lines
    assert_equal_runs(run, tmp_path / "b")


def test_a_half_written_checkpoint_is_no_checkpoint(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path / "a")
    training = new_run(config)
    half = training.checkpoints.path(3)
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"")
    training.resume()
    assert training.step == 0


def test_another_config_is_refused_unless_restarted(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    train(toy_config(student_dir, shards_dir, tmp_path / "a", steps=2))
    changed = toy_config(student_dir, shards_dir, tmp_path / "a", steps=2, optim={"lr": 0.5})
    with pytest.raises(InputError, match=r"config \(optim\.lr: 0\.001 -> 0\.5\); use another --out, --change to go on"):
        train(changed)
    lines: list[str] = []
    train(toy_config(student_dir, shards_dir, tmp_path / "a", steps=2), log=lines.append)
    assert "this run is finished" in lines[0]
    assert train(changed, restart=True).step == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(InputError, match="not a run of coat"):
        train(toy_config(student_dir, shards_dir, tmp_path / "mine"), restart=True)
    assert (tmp_path / "mine" / "file").exists()


def test_a_run_goes_on_with_another_rate_where_that_is_asked_for(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    first = toy_config(student_dir, shards_dir, tmp_path / "a")
    train(first)
    (tmp_path / "a" / "done.json").unlink()
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "step-00000006")  # as if it had stopped at step 5
    data = first.to_dict()
    lower = TrainConfig.from_dict({**data, "optim": {**data["optim"], "lr": 1e-4, "weight_decay": 0.0}}, "test")
    lines: list[str] = []
    train(lower, change=True, log=lines.append)
    assert lines == [
        "changed from here on: optim.lr: 0.001 -> 0.0001",
        "changed from here on: optim.weight_decay: 0.01 -> 0.0",
        "resumed at step 4 of 6",
    ]
    rows = rows_of(tmp_path / "a")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[4]["lr"] == pytest.approx(rows[4]["lr/heads"] / 10)
    optimizer = load_optimizer(tmp_path / "a" / "checkpoints" / "step-00000006")
    assert {g["base_lr"] for g in optimizer["param_groups"]} == {1e-4, 1e-3}
    assert {g["weight_decay"] for g in optimizer["param_groups"]} == {0.0}
    assert load_run(tmp_path / "a").config == lower
    (tmp_path / "a" / "done.json").unlink()
    other = TrainConfig.from_dict({**lower.to_dict(), "heads": {"dim": 32}, "optim": {"ema": 0.9}}, "test")
    with pytest.raises(InputError, match=r"\(heads\.dim: 16 -> 32; .*use another --out, or --restart"):
        train(other, change=True)


def test_old_checkpoints_are_dropped(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    train(toy_config(student_dir, shards_dir, tmp_path / "a", steps=8, run={"keep": 1}))
    assert [p.name for p in (tmp_path / "a" / "checkpoints").iterdir()] == ["step-00000008"]


def test_unknown_experts_are_named(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no targets of hubert; the shards have events, mel, pitch, prosody"):
        train(toy_config(student_dir, shards_dir, tmp_path / "a", heads={"experts": ["hubert"]}))


def test_a_loss_that_is_not_finite_stops_the_run(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    training = new_run(toy_config(student_dir, shards_dir, tmp_path / "a"))
    with torch.no_grad():
        training.model.student.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(
        RunError, match=r"step 1: the loss is not finite: ce, in the pass of samples s00\d, s00\d; look"
    ):
        training.run()


def test_a_tiny_student_learns_one_batch_by_heart(student_dir: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [toy_sample(i, 0.3, targets={}) for i in range(4)])
    stages = [{"name": "answer", "steps": 80}]
    data = {"batch_size": 4, "workers": 0}
    config = toy_config(student_dir, shards, tmp_path / "a", data=data, stages=stages, optim={"lr": 1e-2}, run=RARELY)
    train(config)
    losses = [row["ce"] for row in rows_of(tmp_path / "a")]
    assert losses[0] > 4
    assert losses[-1] < 0.02


def test_distillation_learns_its_targets(student_dir: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [toy_sample(i, meta={}) for i in range(2)])
    stages = [{"name": "distill", "steps": 80, "ce": 0.0}]
    config = toy_config(
        student_dir,
        shards,
        tmp_path / "a",
        stages=stages,
        optim={"lr": 5e-3, "heads_lr": 5e-3},
        heads={"dim": 32},
        run=RARELY,
    )
    train(config)
    rows = rows_of(tmp_path / "a")
    assert "ce" not in rows[0]  # no response anywhere
    for name in ("mel", "prosody"):
        assert rows[-1][f"distill/{name}"] < 0.8 * rows[0][f"distill/{name}"], name
    assert rows[-1]["distill/pitch"] < 0.5 * rows[0]["distill/pitch"]


def test_layer_states_and_gradient_checkpointing(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(
        student_dir, shards_dir, tmp_path / "a", thinking={"layer": 0, "rate_hz": 8.0},
        run={"gradient_checkpointing": True}, lora={"full": False},
    )  # fmt: skip
    assert train(config).finished
    with pytest.raises(InputError, match="the student has 2 layers"):
        train(toy_config(student_dir, shards_dir, tmp_path / "b", thinking={"layer": 2}))


def test_a_bfloat16_student_keeps_what_is_trained_in_float32(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    half = {"path": str(student_dir), "dtype": "bfloat16"}
    config = toy_config(student_dir, shards_dir, tmp_path / "a", lora={"full": False})
    config = TrainConfig.from_dict({**config.to_dict(), "student": half}, "test")
    training = new_run(config)
    assert {p.dtype for p in training.model.trainable().values()} == {torch.float32}
    assert training.model.student.model.lm_head.weight.dtype == torch.bfloat16
    assert train(config).finished
    with pytest.raises(InputError, match="small updates would be rounded away"):
        new_run(TrainConfig.from_dict({**config.to_dict(), "lora": {"full": True}}, "test"))
