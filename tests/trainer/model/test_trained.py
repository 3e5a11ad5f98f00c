"""What is trained: LoRA by pattern, DoRA, rsLoRA, weights unfrozen by name; their rates; what is exported of them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from coat.manifests import InputError, ShardIndex
from coat.trainer import load_run, train
from coat.trainer.config.sections import LoraConfig
from coat.trainer.model.build import build_model
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.lora import check_lora
from coat.trainer.model.parameters import learning_rates, model_part, parameter_groups
from coat.trainer.planning.activations import Shape
from coat.trainer.planning.plan import plan_training
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student
from coat.trainer.training.checkpointing.checkpoint_tensors import load_optimizer, save_tensors
from tests.trainer.helpers import toy_config
from tests.trainer.training.processes import run_ranks, train_and_die
from tests.trainer.training.test_loop import assert_equal_runs

LAYERS = "model.language_model.layers"


def built(student: Path, /, **parts: Any) -> CoatModel:
    lora = {"full": False, "rank": 2, **parts.pop("lora", {})}
    train_ = {"path": str(student), **parts.pop("student", {})}
    return build_model(toy_config(student, Path("-"), Path("-"), lora=lora, student=train_, **parts), {})


def adapted(model: CoatModel) -> dict[str, Any]:
    """Adapted modules by name."""
    return {name: module for name, module in model.student.model.named_modules() if hasattr(module, "lora_A")}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj"], [f"{LAYERS}.{n}.self_attn.q_proj" for n in (0, 1)]),  # not the audio tower's
        ([r"layers\.1\.mlp\..*"], [f"{LAYERS}.1.mlp.{p}_proj" for p in ("gate", "up", "down")]),
        (["self_attn.(k|v)_proj", "0.mlp.up_proj"], [
            f"{LAYERS}.0.self_attn.k_proj", f"{LAYERS}.0.self_attn.v_proj", f"{LAYERS}.0.mlp.up_proj",
            f"{LAYERS}.1.self_attn.k_proj", f"{LAYERS}.1.self_attn.v_proj",
        ]),
        (["v_proj", "audio_tower.layers.0.fc1"], [
            "model.audio_tower.layers.0.fc1", f"{LAYERS}.0.self_attn.v_proj", f"{LAYERS}.1.self_attn.v_proj",
        ]),
    ],
)  # fmt: skip
def test_targets_by_pattern(student_dir: Path, targets: list[str], expected: list[str]) -> None:
    model = built(student_dir, lora={"targets": targets})
    assert sorted(adapted(model)) == sorted(expected)
    trained = {name.split(".lora_")[0].removeprefix("network.") for name in model.trainable() if "lora_" in name}
    assert trained == set(expected)


def test_ranks_and_scales_by_pattern(student_dir: Path) -> None:
    ranks = {"q_proj": 8, r"layers\.1\..*": 4}  # the first that fits
    modules = adapted(built(student_dir, lora={"ranks": ranks, "alphas": {"mlp.up_proj": 3.0}, "alpha": 6}))
    found = {name.removeprefix(f"{LAYERS}."): (m.r["default"], m.scaling["default"]) for name, m in modules.items()}
    assert found["1.self_attn.q_proj"] == (8, 6 / 8)
    assert found["1.mlp.down_proj"] == (4, 6 / 4)
    assert found["0.mlp.down_proj"] == (2, 6 / 2)
    assert found["1.mlp.up_proj"] == (4, 3 / 4)
    rslora = adapted(built(student_dir, lora={"ranks": ranks, "alpha": 6, "rslora": True}))
    assert rslora[f"{LAYERS}.0.self_attn.q_proj"].scaling["default"] == pytest.approx(6 / math.sqrt(8))


def test_dora_is_of_the_paper(student_dir: Path) -> None:
    """Weight: magnitude times the unit vector of base plus update, by row (arXiv 2402.09353, eq. 5)."""
    model = built(student_dir, lora={"dora": True, "targets": ["down_proj"], "alpha": 4})
    module = adapted(model)[f"{LAYERS}.0.mlp.down_proj"]
    with torch.no_grad():
        module.lora_B["default"].weight.normal_(generator=torch.Generator().manual_seed(1))
        magnitude = module.lora_magnitude_vector["default"].weight
        base = module.base_layer.weight
        assert torch.allclose(magnitude, base.norm(dim=1))  # begins as the base
        magnitude.mul_(1.5)
        update = base + 2 * module.lora_B["default"].weight @ module.lora_A["default"].weight
        expected = magnitude[:, None] * update / update.norm(dim=1, keepdim=True)
        x = torch.randn(3, base.shape[1], generator=torch.Generator().manual_seed(2))
        assert torch.allclose(module.eval()(x), x @ expected.T, atol=1e-5)


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"targets": ["gate"]}, r"lora\.targets 'gate': fits no linear layer of the student; it has .*layers\.N\.self"),
        ({"ranks": {"lm_head": 4}}, r"lora\.ranks 'lm_head': fits no layer that is adapted; there are model\.language"),
        ({"alphas": {"x": 4.0}}, r"lora\.alphas 'x': fits no layer that is adapted"),
    ],
)
def test_patterns_that_fit_nothing_are_named_with_what_there_is(student: Student, lora: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_lora(student, LoraConfig(**lora))


def test_wrong_settings_are_named(student_dir: Path) -> None:
    def refused(match: str, **parts: Any) -> None:
        with pytest.raises(InputError, match=match):
            built(student_dir, **parts)

    refused(r"lora\.targets\.0 = '\(': not a regular expression", lora={"targets": ["("]})
    refused("student.train with lora.full: all weights", lora={"full": True}, student={"train": ["projector"]})
    refused(r"student\.train 'projektor': found in no weight's name; there are .*multi_modal_projector", student={
        "train": ["projektor"]})  # fmt: skip
    refused(r"student\.train 'q_proj': .* is what LoRA adapts", student={"train": ["q_proj"]})
    refused(r"student\.train 'embed_tokens': .* or the think rows stand in", student={"train": ["embed_tokens"]})


def test_weights_are_unfrozen_by_name(student_dir: Path) -> None:
    model = built(student_dir, student={"train": ["projector", r"audio_tower\.layers\.0\.fc"]}, heads={"experts": []})
    own = {name.removeprefix("network.model.") for name in model.trainable() if model_part(name) == "student"}
    assert own == {
        *(f"multi_modal_projector.linear.{w}" for w in ("weight", "bias")),
        *(f"audio_tower.layers.0.fc{n}.{w}" for n in (1, 2) for w in ("weight", "bias")),
    }
    whole_tower = built(student_dir, student={"train": ["audio_tower"]})
    assert not any("embed_positions" in name for name in whole_tower.trainable())


def test_what_is_unfrozen_is_float32_where_the_student_is_not(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    half = {"path": str(student_dir), "dtype": "bfloat16", "train": ["projector"]}
    model = built(student_dir, student=half)
    assert {p.dtype for p in model.trainable().values()} == {torch.float32}
    with pytest.raises(InputError, match=r"computes with only where run\.precision is bf16"):
        train(toy_config(student_dir, shards_dir, tmp_path / "a", lora={"full": False}, student=half))
    held_out = {"shards": str(shards_dir), "every": 2, "samples": 4, "answers": 2, "max_new_tokens": 2}
    config = toy_config(student_dir, shards_dir, tmp_path / "b", steps=2, lora={"full": False}, student=half,
                        run={"precision": "bf16"}, evaluation=held_out)  # fmt: skip
    train(config)
    trained = load_run(tmp_path / "b")
    assert {p.dtype for n, p in trained.student.model.named_parameters() if "projector" in n} == {torch.bfloat16}


def test_rates_by_group(student_dir: Path, shards_dir: Path) -> None:
    parts: dict[str, Any] = {
        "student": {"path": str(student_dir), "train": ["projector"]},
        "lora": {"full": False, "rank": 2},
    }
    config = toy_config(student_dir, shards_dir, Path("-"), optim={"lr": 1e-3, "heads_lr": 2e-3}, **parts)
    assert learning_rates(config.optim) == {"lora": 1e-3, "student": 1e-3, "rows": 2e-3, "heads": 2e-3}
    config = toy_config(
        student_dir, shards_dir, Path("-"),
        optim={"lr": 1e-3, "heads_lr": 2e-3, "rows_lr": 3e-3, "student_lr": 4e-3, "weight_decay": 0.5}, **parts,
    )  # fmt: skip
    model = build_model(config, ShardIndex.read(str(shards_dir)).experts)
    found = {name: group for group in parameter_groups(model, config) for name, _ in group["params"]}
    assert found.keys() == model.trainable().keys()
    expected = {"lora": 1e-3, "heads": 2e-3, "rows": 3e-3, "student": 4e-3}
    for name, group in found.items():
        assert group["lr"] == expected[model_part(name).partition("/")[0]], name
        is_matrix = model.trainable()[name].ndim > 1 and "embed" not in name
        assert group["weight_decay"] == (0.5 if is_matrix else 0.0), name


KINDS: dict[str, dict[str, Any]] = {
    "dora": {"lora": {"dora": True, "rslora": True, "ranks": {"q_proj": 3}, "targets": ["self_attn.*", "up_proj"]}},
    "unfrozen": {"student": {"train": ["projector", "audio_tower.layers.0"]}, "optim": {"rows_lr": 1e-2,
                 "student_lr": 1e-3, "ema": 0.5}},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_it_resumes_bit_for_bit_from_a_kill(student_dir: Path, shards_dir: Path, tmp_path: Path, kind: str) -> None:
    parts: dict[str, Any] = {key: dict(value) for key, value in KINDS[kind].items()}
    parts["lora"] = {"full": False, "rank": 2, "dropout": 0.1, **parts.get("lora", {})}
    parts["student"] = {"path": str(student_dir), **parts.get("student", {})}

    def config(name: str) -> Any:
        return toy_config(student_dir, shards_dir, tmp_path / name, **parts)

    log = tmp_path / "log"
    assert run_ranks(1, train_and_die, config("whole"), None, log) == [0]
    assert run_ranks(1, train_and_die, config("cut"), (0, 4, "step"), log) == [-9]
    assert run_ranks(1, train_and_die, config("cut"), None, log) == [0]
    assert "resumed at step 2 of 6" in log.read_text()
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")
    kept = load_file(tmp_path / "whole" / "checkpoints" / "step-00000006" / "model.safetensors")
    wanted = "lora_magnitude_vector" if kind == "dora" else "multi_modal_projector"
    assert any(wanted in name for name in kept)
    finished, newest = load_run(tmp_path / "whole"), load_run(tmp_path / "whole", step=4)
    assert not torch.equal(*(dict(t.student.model.named_parameters())[next(
        n for n, _ in t.student.model.named_parameters() if wanted in n)] for t in (finished, newest)))  # fmt: skip


def test_the_optimizer_of_a_run_of_before_is_read(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    """Its groups had no names: two by two, new or not, with decay or not."""
    config = toy_config(student_dir, shards_dir, tmp_path / "a", lora={"full": False, "rank": 2})
    stops = iter([False, False, False, True])
    train(config, stop=lambda: next(stops))
    checkpoint = tmp_path / "a" / "checkpoints" / "step-00000004"
    state = load_optimizer(checkpoint)
    by_name = {
        name: state["state"][index]
        for group in state["param_groups"] for index, name in zip(group["params"], group["param_names"], strict=True)
    }  # fmt: skip
    trainable = build_model(config, ShardIndex.read(str(shards_dir)).experts).trainable()
    old: dict[tuple[bool, bool], list[str]] = {}
    for name, p in trainable.items():
        is_new = name.startswith("heads.") or "trainable_tokens" in name
        old.setdefault((is_new, p.ndim > 1 and "embed" not in name), []).append(name)
    order = [name for names in old.values() for name in names]
    assert order != [
        name for group in state["param_groups"] for name in group["param_names"]
    ]  # else this shows nothing
    indices = {name: i for i, name in enumerate(order)}
    options = {k: v for k, v in state["param_groups"][0].items() if k not in ("params", "param_names")}
    groups = [{**options, "params": [indices[n] for n in names]} for names in old.values()]
    save_tensors(
        {"state": {i: by_name[n] for n, i in indices.items()}, "param_groups": groups}, checkpoint / "optimizer.pt"
    )
    done = json.loads((checkpoint / "done.json").read_bytes())
    from coat.trainer.records.checkpoint_files import file_digest

    done["files"]["optimizer.pt"] = file_digest(checkpoint / "optimizer.pt")
    (checkpoint / "done.json").write_text(json.dumps(done))
    lines: list[str] = []
    assert train(config, log=lines.append).finished
    assert "resumed at step 4 of 6" in lines
    train(toy_config(student_dir, shards_dir, tmp_path / "b", lora={"full": False, "rank": 2}))
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


def test_plan_train_knows_what_is_trained(student_dir: Path, shards_dir: Path) -> None:
    for parts in KINDS.values():
        lora = {"full": False, "rank": 2, **parts.get("lora", {})}
        own = {"path": str(student_dir), **parts.get("student", {})}
        config = toy_config(student_dir, shards_dir, Path("-"), lora=lora, student=own)
        real = build_model(config, ShardIndex.read(str(shards_dir)).experts)
        planned = plan_training(config, Shape(2, 1.0, 20, 4), str(shards_dir))
        assert planned.trainable == sum(p.numel() for p in real.trainable().values())
        assert planned.parameters == sum(p.numel() for p in real.parameters())
        assert planned.activations.get("audio tower", 0) > 0 or "student" not in parts


def test_the_student_is_read_as_it_was(student_dir: Path) -> None:
    """rsLoRA and DoRA begin as the base: nothing changes before the first step."""
    base = load_student(str(student_dir)).model.eval()
    model = built(student_dir, lora={"dora": True, "rslora": True}, thinking={"count": 0}).student.model.eval()
    ids = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, base(input_ids=ids).logits, atol=1e-5)
