"""Where everything stands is known on the host, and a tower's windows are one batch: states are transformers' own."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from coat.manifests import InputError, ShardIndex
from coat.trainer.config.sections import DataConfig, ThinkingConfig
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.shard_reading import iterate_shards
from coat.trainer.model.batch import Batch
from coat.trainer.model.build import build_model
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.attention import TOWER_ATTENTION, attend_in_windows
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student
from tests.trainer.helpers import toy_config, toy_conversation, toy_sample, toy_text, write_shards
from tests.trainer.students.test_students import close, tone

BOUNDS = {
    "unlike": [0, 5, 6, 11, 13], "alike": [0, 4, 8, 12], "one": [0, 7], "shorter than the longest": [0, 3, 5],
}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDS)
def test_windows_are_attended_to_as_each_alone(name: str) -> None:
    torch.manual_seed(0)
    bounds = BOUNDS[name]
    query, key, value = (torch.randn(2, bounds[-1], 8, requires_grad=True) for _ in range(3))
    longest = max(b - a for a, b in pairwise(bounds)) + (name == "shorter than the longest")
    ours = attend_in_windows(query, key, value, torch.tensor(bounds, dtype=torch.int32), longest, 0.3)
    alone = torch.cat(
        [
            F.scaled_dot_product_attention(query[:, a:b], key[:, a:b], value[:, a:b], scale=0.3)
            for a, b in pairwise(bounds)
        ],
        dim=1,
    )
    assert torch.allclose(ours, alone, atol=1e-6)
    weight = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), [query, key, value]),
        torch.autograd.grad((alone * weight).sum(), [query, key, value]),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-6)


def mixed_batch(student: Student, folder: Path) -> Batch:
    """Long and short audio, as long as a window and a little longer, a conversation and a text."""
    shards = write_shards(folder / "shards", [toy_sample(0), toy_text(1), toy_conversation(2)])
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    collator, config = Collator(student, block, ShardIndex.read(str(shards)), []), DataConfig(shards=str(shards))
    question, text, conversation = iterate_shards(str(shards))
    lengths = [0.4, 2.0, 2.02, student.max_seconds, 1.3]
    samples = [replace(question, samples_S=tone(seconds), targets={}) for seconds in lengths]
    return collator.collate([collator.encode(s, config) for s in [text, *samples, conversation]])


def transformers_own(folder: Path, student: Student) -> Any:
    """The student's model as transformers reads it, and nothing of coat but the new rows."""
    model = getattr(transformers, student.model_class).from_pretrained(folder)
    assert model.model.audio_tower.config._attn_implementation == "sdpa"
    model.resize_token_embeddings(student.model.get_input_embeddings().num_embeddings, mean_resizing=False)
    model.get_input_embeddings().weight.data.copy_(student.model.get_input_embeddings().weight)
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_states_are_those_of_transformers(folder: Path, tmp_path: Path, attention: str) -> None:
    student = load_student(str(folder), attention=attention)
    batch = mixed_batch(student, tmp_path)
    own = transformers_own(folder, student)
    with torch.inference_mode():
        expected_BTD = own.model(**batch.inputs, use_cache=False).last_hidden_state
        by_indices_BTD = student.hidden_states(batch.inputs, batch.indices)
        without_BTD = student.hidden_states(batch.inputs)
    real_BT = batch.inputs["attention_mask"].bool()
    close(by_indices_BTD[real_BT], expected_BTD[real_BT])
    close(without_BTD[real_BT], expected_BTD[real_BT])
    assert (student.model.model.audio_tower.config._attn_implementation == TOWER_ATTENTION) is (attention == "sdpa")


def test_gradients_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    """Of all weights, the audio tower's too."""
    student = load_student(str(folder))
    batch = mixed_batch(student, tmp_path)
    weight_BTD: Tensor = torch.randn(*batch.labels_BT.shape, student.hidden_size)
    weight_BTD *= batch.inputs["attention_mask"][..., None]  # states of padding have no meaning
    found = []
    for indices in (None, batch.indices):
        student.model.zero_grad()
        (student.hidden_states(batch.inputs, indices) * weight_BTD).sum().backward()
        found.append({n: p.grad.clone() for n, p in student.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert sum("audio_tower" in name for name in found[0]) > 10
    for name, gradient in found[0].items():
        assert (found[1][name] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-6, name


def test_attention_that_cannot_be_had_is_one_line(student_dir: Path, tmp_path: Path) -> None:
    def build(**student: Any) -> None:
        config = toy_config(student_dir, tmp_path, tmp_path, lora={"full": False}).to_dict()
        wanted = {"path": str(student_dir), "attention": "flash_attention_2", **student}
        build_model(TrainConfig.from_dict({**config, "student": wanted}, "test"), {})

    with pytest.raises(InputError, match=r"computes in bfloat16 or float16; set student\.dtype, or take sdpa"):
        build()
    with pytest.raises(InputError, match=r"the package flash-attn is not installed here; install it .*or take sdpa"):
        build(dtype="bfloat16")
    with pytest.raises(InputError, match=r"student\.attention = 'fast'.*'sdpa', 'flash_attention_2' or 'eager'"):
        build(attention="fast")
