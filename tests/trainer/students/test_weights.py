"""Checkpoints whose tensors are not all there, or not what they are called: each is an error that names them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from coat.manifests import InputError
from coat.trainer import load_run, train
from coat.trainer.students.registry import STUDENTS, load_student, student_class
from coat.trainer.students.weights import weights_digest
from tests.trainer.helpers import toy_config

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@pytest.fixture
def changed(student_dir: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """A copy of the tiny student with other tensors in its file."""

    def make(change: Change) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(student_dir, folder)
        (file,) = folder.glob("*.safetensors")
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
        return folder

    return make


def test_half_of_the_tensors(changed: Callable[[Change], Path]) -> None:
    kept: list[str] = []

    def half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        names = sorted(tensors)
        kept.extend(names[::2])
        return {name: tensors[name] for name in kept}

    folder = changed(half)
    with pytest.raises(InputError, match=r"tensors are not in its files, and would be random: \S+, .*, and \d+ more"):
        load_student(str(folder))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_weight_that_is_no_number(value: str, changed: Callable[[Change], Path]) -> None:
    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors[next(n for n in sorted(tensors) if "down_proj" in n)].view(-1)[-1] = float(value)
        return tensors

    with pytest.raises(
        InputError, match=r"changed: 1 tensors hold NaN or infinite values: \S*down_proj\.weight\. Copy"
    ):
        load_student(str(changed(spoil)))


@pytest.mark.parametrize("which", ["first", "last", "norm"])
def test_a_single_tensor(which: str, changed: Callable[[Change], Path]) -> None:
    gone: list[str] = []

    def without(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        names = sorted(tensors)
        norm = next(n for n in names if "norm" in n)
        gone.append({"first": names[0], "last": names[-1], "norm": norm}[which])
        return {name: tensor for name, tensor in tensors.items() if name != gone[0]}

    folder = changed(without)
    with pytest.raises(InputError, match="1 tensors are not in its files") as e:
        load_student(str(folder))
    assert gone[0].split(".")[-2] in str(e.value)


def test_another_shape_and_an_unknown_tensor(changed: Callable[[Change], Path]) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        name = next(n for n in sorted(tensors) if n.endswith("q_proj.weight"))
        return {**tensors, name: tensors[name][:-1].contiguous(), "surprise.weight": torch.zeros(3)}

    folder = changed(change)
    with pytest.raises(InputError) as e:
        load_student(str(folder))
    assert re.search(
        r"1 tensors have another shape than config\.json says: \S*q_proj\.weight \[\d+, \d+\] for", str(e.value)
    )
    assert "1 tensors are in its files, and are no part of this model: surprise.weight" in str(e.value)


def test_a_config_that_states_more_layers(student_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(student_dir, tmp_path / "deep")
    config = json.loads((tmp_path / "deep/config.json").read_text())
    config["text_config"]["num_hidden_layers"] += 1
    config["text_config"].pop("layer_types", None)
    (tmp_path / "deep/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"tensors are not in its files, and would be random: \S*layers\.\d+\."):
        load_student(str(tmp_path / "deep"))


@pytest.mark.parametrize("model_type", sorted(STUDENTS))
def test_what_transformers_leaves_out_in_silence_is_listed_with_its_reason(model_type: str) -> None:
    adapter = student_class("", {"model_type": model_type})
    model_class = getattr(transformers, adapter.model_class)
    left_out = [p.removeprefix("^") for p in model_class._keys_to_ignore_on_load_unexpected or []]
    assert not [p for p in left_out if not any(re.match(ours, f"{p}.x") for ours in adapter.not_read)]
    assert not model_class._keys_to_ignore_on_load_missing
    assert all(adapter.not_read.values())


def test_the_digest_tells_weights_apart(student_dir: Path, changed: Callable[[Change], Path]) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        name = sorted(tensors)[0]
        tensors[name].view(-1)[0] += 1.0
        return tensors

    one, again, other = (load_student(str(f)) for f in (student_dir, student_dir, changed(change)))
    assert one.digest == again.digest != other.digest
    assert weights_digest(one.model) == one.digest
    assert weights_digest(one.model.to(torch.bfloat16)) != one.digest


def test_a_run_goes_on_with_the_weights_that_it_began_with(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    """And its adapter is not applied to others."""
    base = tmp_path / "base"
    shutil.copytree(student_dir, base)
    config = toy_config(base, shards_dir, tmp_path / "run", steps=2, lora={"full": False})
    train(config)
    assert json.loads((tmp_path / "run/base.json").read_text())["xxh3_128"] == load_student(str(base)).digest
    load_run(tmp_path / "run")
    (file,) = base.glob("*.safetensors")
    tensors = load_file(file)
    tensors[sorted(tensors)[0]].view(-1)[0] += 1.0
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"other weights than those that .*run began with"):
        load_run(tmp_path / "run")
    (tmp_path / "run/done.json").unlink()
    with pytest.raises(InputError, match=r"other weights than those that .*run began with"):
        train(config)
