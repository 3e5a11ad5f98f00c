"""`thinking.states = "both"`: the block's states are distilled, and the audio's, each by heads of their own."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coat.manifests import InputError, ShardIndex
from coat.trainer import TrainConfig, export_run, iterate_shards, load_run, train
from coat.trainer.data.collator import Collator
from coat.trainer.generation.run_student import load_model
from coat.trainer.model.build import build_model
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import experts_of, with_audio_losses
from coat.trainer.model.loss_scales import expert_weights
from coat.trainer.planning.overfit import overfit
from coat.trainer.run_folder import read_evaluations, read_metrics
from tests.trainer.helpers import toy_config
from tests.trainer.training.test_loop import assert_equal_runs

BOTH = {"count": 4, "states": "both"}


def test_each_loss_is_that_of_a_model_that_distils_there_alone(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path, thinking=BOTH)
    index = ShardIndex.read(str(shards_dir))
    model = build_model(config, experts_of(config, index)).eval()
    assert model.audio_heads is not None
    samples = [s for s, _ in zip(iterate_shards(str(shards_dir)), range(4), strict=False)]

    def losses(model: CoatModel, states: str) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        object.__setattr__(model.block, "config", config.thinking.model_copy(update={"states": states}))
        collator = Collator(model.student, model.block, index, list(experts_of(config, index)))
        batch = collator.collate([collator.encode(sample, config.data) for sample in samples])
        with torch.no_grad():
            return model(batch), batch.counts()

    both, counts = losses(model, "both")
    assert set(both) == set(counts) == {"ce", *model.heads.specs, *(f"{name}@audio" for name in model.heads.specs)}
    at_block, _ = losses(CoatModel(model.student, model.block, model.heads), "think")
    at_audio, _ = losses(CoatModel(model.student, model.block, model.audio_heads), "audio")
    for name in model.heads.specs:
        assert torch.equal(both[name], at_block[name])
        assert torch.equal(both[f"{name}@audio"], at_audio[name])
        assert not torch.equal(both[name], both[f"{name}@audio"])
        assert counts[name] == counts[f"{name}@audio"] > 0
    assert torch.equal(both["ce"], at_block["ce"])


def test_its_losses_have_the_weights_of_their_experts(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    losses = {"weights": {"pitch": 3.0}, "audio": 0.5, "scale": "none"}
    config = toy_config(student_dir, shards_dir, tmp_path, thinking=BOTH, losses=losses)
    experts = experts_of(config, ShardIndex.read(str(shards_dir)))
    weights = expert_weights(config.losses, with_audio_losses(config, experts))
    assert (weights["pitch"], weights["pitch@audio"], weights["mel"], weights["mel@audio"]) == (3.0, 1.5, 1.0, 0.5)
    with pytest.raises(InputError, match='states "both" without a block'):
        toy_config(student_dir, shards_dir, tmp_path, thinking={"count": 0, "states": "both"})


def test_a_run_is_resumed_read_evaluated_and_exported(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    def config(name: str) -> TrainConfig:
        return toy_config(
            student_dir, shards_dir, tmp_path / name, steps=4, thinking=BOTH, lora={"full": False, "rank": 2},
            losses={"balance": "grad_norm"}, optim={"ema": 0.5, "lr": 0.02, "heads_lr": 0.02},
            evaluation={"shards": str(shards_dir), "every": 2, "samples": 3}, run={"save_every": 1, "keep": 9},
        )  # fmt: skip

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(config("whole"))
    calls: list[int] = []
    assert not train(config("cut"), stop=lambda: calls.append(1) or len(calls) >= 2).finished
    assert train(config("cut")).finished
    assert_equal_runs(cut, whole)

    names = {"pitch", "mel", "events", "prosody"}
    expected = {f"distill/{name}{place}" for name in names for place in ("", "@audio")}
    row = read_metrics(whole)[-1]
    assert {key for key in row if key.startswith("distill/")} == expected
    assert {key for key in row if key.startswith("grad_norm/heads/")} == {
        key.replace("distill/", "grad_norm/heads/") for key in expected
    }
    assert all(row[key.replace("distill/", "state_grad_norm/")] > 0 for key in expected)
    assert expected < set(read_evaluations(whole)[-1])

    written = load_file(whole / "heads.safetensors")
    for step in (None, 1):
        model = load_model(whole, step=step)
        assert model.audio_heads is not None
        same = [
            torch.equal(written[prefix + name], weight)
            for prefix, heads in (("", model.heads), ("audio_heads.", model.audio_heads))
            for name, weight in heads.named_parameters()
        ]
        assert len(same) == len(written)
        assert all(same) == (step is None)
    export_run(str(whole), str(tmp_path / "merged"), merged=True)
    files = [load_file(file) for file in (tmp_path / "merged").glob("*.safetensors")]
    assert files
    assert not any("heads." in name for file in files for name in file)
    assert load_run(whole).block.ids_K


def test_a_batch_is_learnt_by_heart_at_both(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path, steps=2, thinking=BOTH)
    found = overfit(config)
    assert {loss.name for loss in found.losses} >= {"ce", "mel", "mel@audio"}
    assert json.dumps([loss.floor for loss in found.losses])
