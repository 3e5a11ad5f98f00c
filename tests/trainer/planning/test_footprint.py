"""`coat plan-train`: the published models at their true shapes, and activations against what autograd really keeps."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coat.cli.main import app
from coat.manifests import InputError, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.decoding import decode_sample
from coat.trainer.data.shard_reading import read_shard
from coat.trainer.model.batch import Batch
from coat.trainer.model.build import build_model
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import experts_of
from coat.trainer.planning.activations import Shape, saved_bytes, storages
from coat.trainer.planning.footprint import footprint
from coat.trainer.planning.online_experts import ONLINE_EXPERTS
from coat.trainer.planning.plan import meta_model, plan_training
from coat.trainer.tiny_students.make import make_tiny_student
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.students.published import AUDIO_FLAMINGO_3, QWEN2_5_OMNI, QWEN2_AUDIO

# Parameters as the checkpoints have them; LoRA's of rank 16: 16 x (inputs + outputs) of seven projections a layer.
PUBLISHED = {
    "qwen2_audio": (QWEN2_AUDIO, 8_397_094_912, 4096, 156032, 32 * 16 * (4 * 8192 + 3 * (4096 + 11008))),
    "qwen2_5_omni": (
        QWEN2_5_OMNI, 8_931_813_888, 3584, 152064, 28 * 16 * (2 * 7168 + 2 * (3584 + 512) + 3 * (3584 + 18944))
    ),
    "audioflamingo3": (
        AUDIO_FLAMINGO_3, 8_267_215_360, 3584, 151672, 28 * 16 * (2 * 7168 + 2 * (3584 + 512) + 3 * (3584 + 18944))
    ),
}  # fmt: skip


def real_config(source: Path, **parts: Any) -> TrainConfig:
    data = {"student": {"path": str(source), "dtype": "bfloat16"}, "data": {"shards": "unused"}, "run": {"out": "x"}}
    return TrainConfig.from_dict({**data, **parts}, "test")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_models_at_their_true_shapes(name: str, tmp_path: Path) -> None:
    published, parameters, hidden, vocabulary, lora = PUBLISHED[name]
    source = tmp_path / "config.json"
    source.write_text(json.dumps(published))
    config = real_config(source, thinking={"count": 32})
    experts = {e.name: e.info() for e in ONLINE_EXPERTS}
    model = meta_model(config, experts, 30.0)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model.block.new_ids == list(range(vocabulary, vocabulary + 34))
    assert model.student.model.get_output_embeddings().weight.shape == (vocabulary + 34, hidden)
    found = footprint(model, config, experts, Shape(4, 30.0, 128, 32))
    parts = {p.name: p for p in found.parts}
    own = sum(parts[n].parameters for n in ("audio tower", "vision tower", "language model") if n in parts)
    assert own == parameters + 2 * 34 * hidden  # both embeddings grew
    assert (parts["LoRA"].parameters, parts["LoRA"].trainable) == (lora, lora)
    assert (parts["think rows"].parameters, parts["think rows"].trainable) == (34 * hidden, 34 * hidden)
    assert parts["heads"].trainable == parts["heads"].parameters
    assert found.trainable == lora + 34 * hidden + parts["heads"].parameters
    assert found.positions == 128 + 750 + 34
    assert found.gradients == 4 * found.trainable  # float32
    assert found.optimizer == 8 * found.trainable
    assert found.weights == pytest.approx(2 * own + 4 * found.trainable, rel=1e-3)  # and some buffers
    assert found.checkpointed < 0.25 * sum(found.activations.values())
    assert found.fits(80e9, checkpointing=True)
    assert not found.fits(24e9, checkpointing=True, online=True)


def test_tied_embeddings_are_counted_once(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="pip install .[omni]")
    found: dict[bool, tuple[int, int]] = {}
    for tied in (False, True):
        source = make_tiny_student(tmp_path / str(tied), name="qwen2.5-omni", tied=tied)
        config = real_config(source, thinking={"count": 4}, student={"path": str(source)})
        model = meta_model(config, {}, 1.0)
        embeddings = model.student.model.get_input_embeddings().weight.numel()
        found[tied] = sum(t.numel() * t.element_size() for t in storages(model)), embeddings
    (untied, embeddings), (once, same) = found[False], found[True]
    ids = 4 * 8 * 4  # the tied layer knows which rows are trained, too: some ids of 8 bytes for each
    assert embeddings == same
    assert 4 * embeddings - ids <= untied - once <= 4 * embeddings


def batch_of(model: CoatModel, shards: Path, config: TrainConfig) -> Batch:
    index = ShardIndex.read(str(shards))
    collator = Collator(model.student, model.block, index, list(experts_of(config, index)))
    raws = [raw for shard in index.shards for raw in read_shard(index, shard)]
    return collator.collate([collator.encode(decode_sample(raw, index), config.data) for raw in raws])


@pytest.mark.parametrize(
    ("name", "samples", "seconds", "full", "thinking"),
    [
        ("qwen2-audio", 2, 1.0, False, {}),
        ("qwen2-audio", 5, 2.5, False, {}),
        ("qwen2-audio", 5, 2.5, False, {"hide_audio": 0.5}),
        ("audio-flamingo-3", 3, 1.5, False, {}),
        ("qwen2.5-omni", 3, 1.5, False, {}),
        ("qwen2-audio", 2, 2.5, True, {}),
        ("qwen2-audio", 4, 2.5, False, {"count": 0, "states": "audio"}),
        ("qwen2-audio", 3, 2.5, False, {"count": 4, "states": "both"}),
    ],
)
def test_activations_are_what_autograd_keeps(
    name: str, samples: int, seconds: float, full: bool, thinking: dict[str, Any], tmp_path: Path
) -> None:
    student = make_tiny_student(tmp_path / "student", name=name, text_layers=3)
    rows = [toy_sample(2 * i, seconds=seconds) for i in range(samples)]
    for row in rows[1:]:
        row["meta"]["prompt"] = "Is it a low tone or a high one?"  # so that there is padding, and a mask
    shards = write_shards(tmp_path / "shards", rows, per_shard=samples)
    config = toy_config(student, shards, tmp_path / "run", lora={"full": full, "rank": 4}, run={"precision": "no"},
                        thinking=thinking)  # fmt: skip
    experts = experts_of(config, ShardIndex.read(str(shards)))
    for checkpointing in (False, True):
        now = config.model_copy(update={"run": config.run.model_copy(update={"gradient_checkpointing": checkpointing})})
        model = build_model(now, experts)
        batch = batch_of(model, shards, config)
        really = saved_bytes(lambda: model.train()(batch), storages(model))  # noqa: B023
        audio = model.student.audio_positions(round(seconds * 16000))
        text = batch.labels_BT.shape[1] - audio - model.block.inserted_positions(seconds)
        shape = Shape(samples, seconds, text, response=5)  # "high" and the turn's end
        found = footprint(meta_model(config, experts, seconds), config, experts, shape)
        assert found.positions == batch.labels_BT.shape[1]
        said = found.checkpointed - found.layer if checkpointing else sum(found.activations.values())
        assert said == pytest.approx(really, rel=0.1), (checkpointing, found.activations)


def test_the_command(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    flags = ["plan-train", "--student", str(student_dir), "--shards", str(shards_dir), "--batch", "2", "--seconds", "1"]
    flags += ["--set", "heads.dim=16", "--set", "heads.heads=2", "--gpu", "80GB"]
    done = CliRunner().invoke(app, flags)
    assert done.exit_code == 0, done.output
    found = json.loads(CliRunner().invoke(app, [*flags, "--json"]).stdout)
    assert f"{found['parameters']:,}" in done.stdout
    assert f"{found['trainable']:,}" in done.stdout
    assert "fits 80GB" in done.stdout
    assert found["fits"]["no_checkpointing"]["without_experts"] is True
    assert found["online_weights"] == 2 * sum(e.parameters for e in ONLINE_EXPERTS)
    real = build_model(toy_config(student_dir, shards_dir, tmp_path, thinking={"count": 32}, lora={"full": False},
                                  heads={"layers": 2}), ShardIndex.read(str(shards_dir)).experts)  # fmt: skip
    assert found["trainable"] == sum(p.numel() for p in real.trainable().values())
    assert found["parameters"] == sum(p.numel() for p in real.parameters())
    wrong = CliRunner().invoke(app, [*flags, "--gpu", "many"])
    assert isinstance(wrong.exception, InputError)
    assert "expected a size such as 80GB" in str(wrong.exception)


def test_without_a_block_there_are_no_heads_and_no_rows(student_dir: Path) -> None:
    config = real_config(student_dir, thinking={"count": 0})
    found = plan_training(config, Shape(2, 1.0, 50, 50))
    assert {p.name for p in found.parts} == {"audio tower", "language model", "LoRA"}
    assert (found.think_rows, found.activations["heads and their losses"]) == (0, 0)
    at_audio = plan_training(real_config(student_dir, thinking={"count": 0, "states": "audio"}), Shape(2, 1.0, 50, 50))
    assert at_audio.parts[-1].name == "heads"
    assert at_audio.activations["heads and their losses"] > 0
