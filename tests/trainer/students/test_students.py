"""What every student must keep, for each that there is: the conformance suite of `trainer/students`."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coat.manifests import ShardIndex
from coat.trainer import load_run, train
from coat.trainer.config.sections import DataConfig, ThinkingConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.shard_reading import iterate_shards
from coat.trainer.generation.generate import Trained
from coat.trainer.model.batch import IGNORED, Batch
from coat.trainer.model.build import build_model
from coat.trainer.model.experts import experts_of
from coat.trainer.model.saved_weights import load_weights
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from coat.trainer.students.registry import STUDENTS, load_student
from coat.trainer.students.unusable import UnusableInput
from coat.trainer.tiny_students.make import make_tiny_student
from tests.trainer.helpers import toy_config, toy_sample

ALIKE = 2e-5  # of the largest value: what other shapes of matrix products change
LONGEST_S = {"qwen2-audio": 3, "qwen2.5-omni": 3, "audio-flamingo-3": 12, "qwen3-omni": 12}


@pytest.fixture
def student(folder: Path) -> Student:
    return load_student(str(folder))


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(np.arange(round(seconds * 16000)) / 20)).astype(np.float32)


def inputs_of(student: Student, prompt: str = "What is it?", seconds: float = 1.0) -> dict[str, Tensor]:
    prefix = student.prefix(tone(seconds), prompt)
    ids = torch.tensor([prefix.ids])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **prefix.features}


def close(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() <= ALIKE * b.abs().max()


@pytest.fixture
def batch(student: Student, shards_dir: Path) -> tuple[Collator, Batch, list[Batch]]:
    """Three samples of unlike length together, and each alone."""
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    collator = Collator(student, block, ShardIndex.read(str(shards_dir)), ["mel"])
    samples = [s for s in iterate_shards(str(shards_dir)) if s.key in ("s001", "s004", "s009")]
    items = [collator.encode(s, DataConfig(shards=str(shards_dir))) for s in samples]
    return collator, collator.collate(items), [collator.collate([item]) for item in items]


def test_all_are_tried() -> None:
    assert {load.split(":")[0] for load in STUDENTS.values()} == {
        f"coat.trainer.students.{name}" for name in ("qwen2_audio", "qwen2_5_omni", "qwen3_omni", "audio_flamingo3")
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_computes_in_the_precision_of_its_weights(folder: Path, dtype: str) -> None:
    """Without autocast: as it is asked, and trained where `run.precision` is no."""
    student = load_student(str(folder), dtype)
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    trained = Trained(student, block, toy_config(folder, folder, folder))
    inputs = trained.inputs([((tone(1.0), 16000), "What is it?", ())])
    with torch.inference_mode():
        states_BTD = student.hidden_states(inputs)
        assert states_BTD.dtype == getattr(torch, dtype)
        exact_BTD = student_states(folder, inputs)
        assert (states_BTD.float() - exact_BTD).abs().max() < 0.1 * exact_BTD.abs().max()


def student_states(folder: Path, inputs: dict[str, Tensor]) -> Tensor:
    """In float32."""
    student = load_student(str(folder))
    ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    return student.hidden_states({n: t.float() if t.is_floating_point() else t for n, t in inputs.items()})


def test_a_batch_is_its_samples(student: Student, batch: tuple[Collator, Batch, list[Batch]]) -> None:
    _, in_one_batch, alone = batch
    with torch.inference_mode():
        states_BTD = student.hidden_states(in_one_batch.inputs)
        for b, single in enumerate(alone):
            close(states_BTD[b, : single.inputs["input_ids"].shape[1]], student.hidden_states(single.inputs)[0])


def test_padding_on_the_left_is_padding_on_the_right(
    student: Student, batch: tuple[Collator, Batch, list[Batch]]
) -> None:
    inputs = batch[1].inputs
    lengths = inputs["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 1
    left = {
        name: torch.stack([row.roll(-n) for row, n in zip(inputs[name], lengths, strict=True)])
        for name in ("input_ids", "attention_mask")
    }
    with torch.inference_mode():
        right_BTD, left_BTD = student.hidden_states(inputs), student.hidden_states({**inputs, **left})
    for b, n in enumerate(lengths):
        close(left_BTD[b, -n:], right_BTD[b, :n])


def test_block_and_labels_are_where_they_should_be(
    student: Student, batch: tuple[Collator, Batch, list[Batch]]
) -> None:
    _, in_one_batch, _ = batch
    for b, name in enumerate(in_one_batch.ids):
        length = int(in_one_batch.inputs["attention_mask"][b].sum())
        ids, labels = in_one_batch.inputs["input_ids"][b, :length], in_one_batch.labels_BT[b, :length]
        text = student.tokenizer.decode(ids)
        think = "".join(f"<|audio_think_{k}|>" for k in range(4))
        before, _, after = text.partition(f"<|audio_think_begin|>{think}<|audio_think_end|>")
        assert student.audio_token in before
        assert student.audio_token not in after
        assert "High or low?" in after
        assert (
            student.tokenizer.decode(labels[labels != IGNORED]) == f"{'low' if int(name[1:]) % 2 else 'high'}<|im_end|>"
        )


@pytest.mark.parametrize("seconds", [0.035, 0.1, 0.333, 1.0, 2.0001, 2.99, 3.0])
def test_audio_has_as_many_positions_as_are_foretold(student: Student, seconds: float) -> None:
    sound = tone(max(seconds, student.min_samples / student.sample_rate))
    prefix = student.prefix(sound, "What?")
    audio_id = student.tokenizer.convert_tokens_to_ids(student.audio_token)
    assert prefix.ids.count(audio_id) == student.audio_positions(len(sound))
    assert len(prefix.ids) == student.prompt_positions("What?") + student.audio_positions(len(sound))
    assert audio_id not in prefix.ids[prefix.audio_end :]
    assert prefix.ids[prefix.audio_end - 1] == audio_id or prefix.ids[prefix.audio_end - 2] == audio_id
    with torch.inference_mode():
        ids = torch.tensor([prefix.ids])
        states = student.hidden_states({"input_ids": ids, "attention_mask": torch.ones_like(ids), **prefix.features})
    assert states.isfinite().all()


def test_audio_beyond_a_window_is_heard_whole(folder: Path, student: Student) -> None:
    """Audio Flamingo 3 hears windows: what follows the first changes what follows in the text."""
    assert student.max_seconds == LONGEST_S[folder.name]
    with pytest.raises(UnusableInput, match="hears at most"):
        student.prefix(tone(student.max_seconds + 0.1), "?")
    with pytest.raises(UnusableInput, match="gives no audio positions"):
        student.prefix(tone(0.012), "?")
    whole = student.prefix(tone(student.max_seconds), "?")
    audio_id = student.tokenizer.convert_tokens_to_ids(student.audio_token)
    rate = 13 if folder.name == "qwen3-omni" else 25
    assert whole.ids.count(audio_id) == rate * LONGEST_S[folder.name]
    other = tone(student.max_seconds)
    other[-8000:] = 0.0
    ids = torch.tensor([whole.ids])
    with torch.inference_mode():
        heard = [
            student.hidden_states({"input_ids": ids, "attention_mask": torch.ones_like(ids), **features})
            for features in (whole.features, student.prefix(other, "?").features)
        ]
    assert (heard[0][0, -1] - heard[1][0, -1]).abs().max() > 0


def test_long_and_short_audio_in_one_batch(student: Student, shards_dir: Path) -> None:
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    collator = Collator(student, block, ShardIndex.read(str(shards_dir)), [])
    (sample,) = [s for s in iterate_shards(str(shards_dir)) if s.key == "s001"]
    config = DataConfig(shards=str(shards_dir))
    lengths = [0.4, student.max_seconds, student.max_seconds / 2]
    items = [collator.encode(replace(sample, samples_S=tone(seconds)), config) for seconds in lengths]
    with torch.inference_mode():
        states_BTD = student.hidden_states(collator.collate(items).inputs)
        for b, item in enumerate(items):
            close(states_BTD[b, : len(item.ids)], student.hidden_states(collator.collate([item]).inputs)[0])


def test_the_student_is_as_it_was_without_a_block(folder: Path, student: Student) -> None:
    original, inputs = load_student(str(folder)), inputs_of(student)
    ThinkingBlock.add_to(student, ThinkingConfig(count=5))
    with torch.inference_mode():
        before, after = original.model(**inputs).logits, student.model(**inputs).logits
        assert torch.equal(after, student.logits(student.hidden_states(inputs)))
    assert after.shape[-1] > before.shape[-1]
    assert torch.equal(before, after[..., : before.shape[-1]])


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_a_run_is_trained_saved_and_asked(folder: Path, shards_dir: Path, tmp_path: Path, full: bool) -> None:
    train(toy_config(folder, shards_dir, tmp_path / "run", steps=4, lora={"full": full}))
    trained = load_run(tmp_path / "run")
    lengths: list[int] = []
    trained.student.language_model.register_forward_hook(
        lambda _module, _args, kwargs, _out: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    audio = (toy_sample(1)["audio"], 16000)
    answer: Any = trained.ask(audio, "High or low?", max_new_tokens=5)
    assert isinstance(answer, str)
    prefix = trained.student.prefix(audio[0], "High or low?")
    assert lengths[0] == len(prefix.ids) + len(trained.block.ids_K) + 2
    assert set(lengths[1:]) <= {1}
    asked = [((toy_sample(i, seconds=s)["audio"], 16000), "High or low?", ()) for i, s in enumerate((0.5, 1.0, 2.5))]
    alone = [trained.ask(a, p, max_new_tokens=5) for a, p, _ in asked]
    assert trained.ask_many(asked, max_new_tokens=5) == alone
    live = build_model(trained.config, experts_of(trained.config, ShardIndex.read(str(shards_dir))))
    load_weights(tmp_path / "run" / "checkpoints" / "step-00000004" / "model.safetensors", live.trainable())
    inputs = trained.inputs(asked)
    with torch.no_grad():
        assert torch.equal(trained.student.model(**inputs).logits, live.eval().student.model(**inputs).logits)


@pytest.mark.parametrize("placement", ["after_audio", "before_response"])
def test_prompts_about_one_audio_share_it_and_are_answered_as_each_alone(student: Student, placement: Any) -> None:
    config = ThinkingConfig(count=4, placement=placement, noise=1.0)
    trained = Trained(student, ThinkingBlock.add_to(student, config), toy_config(Path("-"), Path("-"), Path("-")))
    with torch.no_grad():  # weights as small as the random ones hardly look back
        for weight in student.language_model.layers.parameters():  # type: ignore[union-attr]
            weight.mul_(10 if weight.ndim > 1 else 1)
    audio, prompts = (tone(1.0), 16000), ["High or low?", "What is it that is heard?", "High"]
    inputs = [trained.inputs([(audio, p, ())]) for p in prompts]
    alone = [trained.generate(i, 8) for i in inputs]
    assert len({tuple(ids.flatten().tolist()) for ids in alone}) > 1  # the prompts matter
    trained.ask_many([((tone(s), 16000), "What?", ()) for s in (0.5, 1.5)])  # other positions come between
    lengths: list[int] = []
    student.language_model.register_forward_hook(
        lambda _module, _args, kwargs, _out: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    passed: list[Tensor] = []
    generate = trained.generate
    trained.generate = lambda *args, **kwargs: passed.append(generate(*args, **kwargs)) or passed[-1]  # type: ignore[method-assign]
    answers = trained.ask_each(audio, prompts, max_new_tokens=8)
    assert [ids.tolist() for ids in passed] == [ids.tolist() for ids in alone]
    assert answers == [trained.decode(ids)[0] for ids in alone]
    end = student.prefix(*audio[:1], "?").audio_end
    shared = lengths[0]
    assert shared >= end + (4 + 2 if placement == "after_audio" else 0)
    expected = [shared]
    for row, ids in zip(inputs, alone, strict=True):
        expected += [row["input_ids"].shape[1] - shared, *[1] * (ids.shape[1] - 1)]
    assert lengths == expected


def test_merged_is_unmerged(folder: Path, shards_dir: Path, tmp_path: Path) -> None:
    """With adapters and new rows that matter."""
    model = build_model(toy_config(folder, shards_dir, tmp_path, lora={"full": False}), {}).eval()
    inputs = Trained(model.student, model.block, toy_config(folder, shards_dir, tmp_path)).inputs(
        [((tone(s), 16000), "What?", ()) for s in (0.5, 1.2)]
    )
    with torch.no_grad():
        begun = model.student.model(**inputs).logits
        for parameter in model.trainable().values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
        unmerged = model.student.model(**inputs).logits
        merged = copy.deepcopy(model.student.peft_model).merge_and_unload()
        assert not any("lora" in name or "token_adapter" in name for name, _ in merged.named_modules())
        assert (unmerged - begun).abs().max() > 0.1 * begun.abs().max()
        close(merged(**inputs).logits, unmerged)


@pytest.mark.parametrize(("name", "model_type"), [("qwen2.5-omni", "qwen2_5_omni"), ("qwen3-omni", "qwen3_omni_moe")])
def test_the_thinker_is_read_out_of_a_whole_omni_checkpoint(tmp_path: Path, name: str, model_type: str) -> None:
    """As the hub has it: weights under `thinker.`, and its configuration within that of the whole."""
    pytest.importorskip("torchvision", reason="pip install .[omni]")
    alone = make_tiny_student(tmp_path / "thinker", name=name)
    whole = tmp_path / "whole"
    shutil.copytree(alone, whole)
    weights = load_file(alone / "model.safetensors")
    talker = {"talker.model.norm.weight": torch.ones(4)}  # is there, and is left alone
    save_file(
        {**{f"thinker.{k}": v for k, v in weights.items()}, **talker}, whole / "model.safetensors", {"format": "pt"}
    )
    thinker = json.loads((alone / "config.json").read_text())
    config = {"model_type": model_type, "thinker_config": thinker}
    (whole / "config.json").write_text(json.dumps(config))
    inputs = inputs_of(load_student(str(alone)))
    with torch.inference_mode():
        expected, found = (load_student(str(path)).model(**inputs).logits for path in (alone, whole))
    assert torch.equal(expected, found)
