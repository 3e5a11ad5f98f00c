"""FSDP2 of a student that is trained whole: on two ranks it is the run of DDP, resumes bit for bit, and is exported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from coat.trainer import TrainConfig, export_run, load_run
from coat.trainer.model.saved_weights import load_shards, shard_names
from coat.trainer.records.checkpoint_files import is_sharded_checkpoint
from coat.trainer.run_folder import read_rows
from coat.trainer.tiny_students.make import make_tiny_student
from tests.trainer.helpers import toy_config
from tests.trainer.training.processes import count_shards, run_ranks, train_and_die, train_sharded
from tests.trainer.training.test_loop import assert_equal_runs, rows_of, weights_of

AUDIO = (np.zeros(8000, np.float32), 16000)


def config_of(student: Path, shards: Path, out: Path, steps: int = 8, **parts: Any) -> TrainConfig:
    held_out = {"shards": str(shards), "every": 4, "samples": 5, "answers": 2, "max_new_tokens": 2}
    run = {"accumulate": 2, "save_every": 2, "keep": 9, **parts.pop("run", {})}
    optim = {"lr": 1e-3, "ema": 0.9, "warmup": 2, **parts.pop("optim", {})}
    return toy_config(student, shards, out, steps=steps, run=run, evaluation=held_out, optim=optim, **parts)


@pytest.fixture(scope="module")
def runs(student_dir: Path, shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run, sharded and under DDP."""
    folder = tmp_path_factory.mktemp("sharded")
    for name, train in (("whole", train_sharded), ("ddp", train_and_die)):
        config = config_of(student_dir, shards_dir, folder / name)
        assert run_ranks(2, train, config, None, folder / "log") == [0, 0], (folder / "log").read_text()
    return {name: folder / name for name in ("whole", "ddp")}


def test_it_is_the_run_of_whole_weights(runs: dict[str, Path]) -> None:
    for ours, theirs in zip(rows_of(runs["whole"]), rows_of(runs["ddp"]), strict=True):
        assert (ours.pop("stage"), ours) == (theirs.pop("stage"), pytest.approx(theirs, rel=1e-3, abs=1e-5))
    figures = [read_rows(path / "evaluation.jsonl") for path in runs.values()]
    assert len(figures[0]) == 2
    assert figures[0] == [pytest.approx(row, rel=1e-3) for row in figures[1]]
    ours, theirs = weights_of(runs["whole"]), weights_of(runs["ddp"])
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-4) for name in ours)


def test_it_resumes_bit_for_bit(student_dir: Path, shards_dir: Path, tmp_path: Path, runs: dict[str, Path]) -> None:
    config, log = config_of(student_dir, shards_dir, tmp_path / "cut"), tmp_path / "log"
    for death in [(0, 4, "done"), (1, 7, "step")]:
        assert run_ranks(2, train_sharded, config, death, log)[death[0]] == -9
    assert run_ranks(2, train_sharded, config, None, log) == [0, 0], log.read_text()
    assert [line for line in log.read_text().splitlines() if line.startswith("resumed")] == [
        f"resumed at step {step} of 8" for step in (2, 6)
    ]
    assert_equal_runs(tmp_path / "cut", runs["whole"])


def test_a_checkpoint_is_in_parts_without_pickles(runs: dict[str, Path]) -> None:
    checkpoint = runs["whole"] / "checkpoints" / "step-00000008"
    assert is_sharded_checkpoint(checkpoint)
    files = {p.name for p in checkpoint.iterdir()}
    parts = {f"shard-0000{n}-model-00001-of-00001.safetensors" for n in (1, 2)}
    assert files == {
        *parts,
        *(f"rank-{n}.{kind}" for n in (0, 1) for kind in ("pt", "json")),
        "state.json",
        "done.json",
    }
    done = json.loads((checkpoint / "done.json").read_bytes())
    assert done["files"].keys() == files - {"done.json"}
    held = [load_file(checkpoint / name) for name in sorted(parts)]
    sizes = [sum(t.numel() for name, t in part.items() if ".heads." not in f".{name}") for part in held]
    assert max(sizes) < 0.52 * sum(sizes)  # heads are whole on every rank, and in one part
    names = shard_names(checkpoint)
    wanted = "network.model.language_model.layers.0.mlp.down_proj.weight"
    assert {wanted, f"ema.{wanted}", f"optimizer.{wanted}.exp_avg", f"optimizer.{wanted}.step"} <= set(names)
    whole = load_file(runs["ddp"] / "checkpoints" / "step-00000008" / "model.safetensors")
    tensors = {name: torch.zeros_like(tensor) for name, tensor in whole.items()}
    load_shards(checkpoint, tensors)
    assert all(torch.allclose(tensors[name], whole[name], atol=2e-4) for name in whole)


def test_any_checkpoint_is_asked_and_exported(runs: dict[str, Path], tmp_path: Path) -> None:
    finished, same = load_run(runs["whole"]), load_run(runs["whole"], step=8)
    ours, theirs = (dict(trained.student.model.state_dict()) for trained in (finished, same))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    earlier = load_run(runs["whole"], step=4)
    assert earlier.step == 4
    made = export_run(runs["whole"], tmp_path / "out", step=4)
    assert (made.kind, made.step) == ("model", 4)
    exported = type(earlier.student.model).from_pretrained(tmp_path / "out").state_dict()
    ours = earlier.student.model.state_dict()
    assert all(torch.equal(exported[name], ours[name]) for name in ours)
    assert isinstance(earlier.ask(AUDIO, "?", max_new_tokens=2), str)


def test_each_rank_holds_its_part(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    assert run_ranks(2, count_shards, config_of(student_dir, shards_dir, tmp_path / "held"), tmp_path) == [0, 0]
    held = [json.loads((tmp_path / f"held-{rank}.json").read_text()) for rank in (0, 1)]
    assert sum(h["trained"][0] for h in held) == held[0]["trained"][1]
    assert max(h["trained"][0] for h in held) < 0.52 * held[0]["trained"][1]
    assert all(h["heads"][0] == h["heads"][1] > 0 for h in held)


def test_a_run_goes_on_from_whole_weights_to_parts_and_back(
    student_dir: Path, shards_dir: Path, tmp_path: Path, runs: dict[str, Path]
) -> None:
    config, log = config_of(student_dir, shards_dir, tmp_path / "run"), tmp_path / "log"
    assert run_ranks(2, train_and_die, config, (1, 4, "step"), log)[1] == -9
    assert run_ranks(2, train_sharded, config, (1, 7, "step"), log)[1] == -9
    assert run_ranks(2, train_and_die, config, None, log) == [0, 0], log.read_text()
    ours, theirs = weights_of(tmp_path / "run"), weights_of(runs["ddp"])
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-4) for name in ours)


def test_it_computes_in_bf16_and_keeps_float32(shards_dir: Path, tmp_path: Path) -> None:
    """Of a student whose embeddings are tied, and of one with other towers."""
    pytest.importorskip("torchvision", reason="pip install .[omni]")
    student = make_tiny_student(tmp_path / "student", name="qwen2.5-omni")
    config, log = config_of(student, shards_dir, tmp_path / "run", 4, run={"precision": "bf16"}), tmp_path / "log"
    assert run_ranks(2, train_sharded, config, None, log) == [0, 0], log.read_text()
    assert {t.dtype for t in weights_of(tmp_path / "run").values()} == {torch.float32}
    losses = [row["loss"] for row in rows_of(tmp_path / "run")]
    assert all(np.isfinite(losses))
    wide = config_of(student, shards_dir, tmp_path / "wide", 4, run={"precision": "no"})
    assert run_ranks(2, train_sharded, wide, None, log) == [0, 0], log.read_text()
    exact = [row["loss"] for row in rows_of(tmp_path / "wide")]
    assert losses != exact
    assert losses == pytest.approx(exact, rel=0.05)
