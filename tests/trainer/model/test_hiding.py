"""`thinking.hide_audio`: in some of the training's samples answers hear the audio through the block alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from coat.manifests import InputError, ShardIndex
from coat.trainer import TrainConfig, train
from coat.trainer.config.sections import DataConfig, HeadsConfig, ThinkingConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.shard_reading import iterate_shards
from coat.trainer.model.batch import Batch
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.heads import DistillHeads
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.run_folder import read_evaluations
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student
from tests.trainer.helpers import toy_config, toy_conversation, toy_sample, toy_text, write_shards
from tests.trainer.students.test_students import close, tone
from tests.trainer.training.test_loop import assert_equal_runs

HEARING, DEAF, TEXT, CONVERSATION = range(4)  # rows of `batch_of`; all but HEARING are drawn


def batch_of(student: Student, folder: Path, **thinking: Any) -> tuple[ThinkingBlock, Batch]:
    """Of unlike lengths, so that rows are padded."""
    shards = write_shards(folder / "shards", [toy_sample(0), toy_text(1), toy_conversation(2)])
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4, hide_audio=0.5, noise=1.0, **thinking))
    collator, config = Collator(student, block, ShardIndex.read(str(shards)), []), DataConfig(shards=str(shards))
    question, text, conversation = iterate_shards(str(shards))
    samples = [replace(question, samples_S=tone(seconds), targets={}) for seconds in (0.4, 1.3)]
    return block, collator.collate([collator.encode(s, config) for s in (*samples, text, conversation)])


def mask_of(batch: Batch, drawn: Sequence[int]) -> Tensor:
    """Of what each position attends to, by hand."""
    rows, positions = batch.labels_BT.shape
    mask_B1TT = torch.ones(rows, 1, positions, positions).tril().bool()
    assert batch.hidden
    for row in drawn:
        for column in batch.hidden.columns_BT[row].nonzero()[:, 0].tolist():
            mask_B1TT[row, 0, int(batch.hidden.from_B[row]) :, column] = False
    return mask_B1TT


def of_one_layer(student: Student) -> None:
    """No position then hears by another: what it hears, it attends to."""
    layers = cast(nn.ModuleList, student.language_model.layers)
    student.language_model.layers = layers[:1]


def heard_by(student: Student, batch: Batch, mask_B1TT: Tensor | None, row: int, positions: Sequence[int]) -> float:
    """How much the states at these positions change with their row's audio."""
    inputs, indices = ({name: t.clone() for name, t in of.items()} for of in (batch.inputs, batch.indices))
    features = [t.requires_grad_() for t in (*inputs.values(), *indices.values()) if t.is_floating_point()]
    states_BTD = student.hidden_states(inputs, indices, mask_B1TT)
    heard = states_BTD[row, list(positions)].square().sum()
    gradients = torch.autograd.grad(heard, features, allow_unused=True)  # some towers read those of the indices
    return sum(float(gradient.abs().sum()) for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("placement", ["after_audio", "before_response"])
def test_answers_do_not_hear_and_the_block_does(folder: Path, tmp_path: Path, placement: str) -> None:
    student = load_student(str(folder))
    block, batch = batch_of(student, tmp_path, placement=placement)
    of_one_layer(student)
    mask_B1TT = mask_of(batch, [DEAF, TEXT, CONVERSATION])
    for row in (HEARING, DEAF, CONVERSATION):
        ids = batch.inputs["input_ids"][row].tolist()
        end, last = ids.index(block.end_id), int(batch.inputs["attention_mask"][row].sum())
        think = [i for i, token in enumerate(ids) if token in block.ids_K]
        assert heard_by(student, batch, None, row, range(end, last)) > 0
        assert (heard_by(student, batch, mask_B1TT, row, range(end, last)) > 0) is (row == HEARING)
        assert heard_by(student, batch, mask_B1TT, row, think) > 0
    with torch.no_grad():
        before_BTD = student.hidden_states(batch.inputs, batch.indices)
        after_BTD = student.hidden_states(batch.inputs, batch.indices, mask_B1TT)
    for row in range(4):
        real = int(batch.inputs["attention_mask"][row].sum())
        ids = batch.inputs["input_ids"][row].tolist()
        same = ids.index(block.end_id) if row in (DEAF, CONVERSATION) else real
        close(after_BTD[row, :same], before_BTD[row, :same])
        assert row in (HEARING, TEXT) or not torch.allclose(after_BTD[row, same:real], before_BTD[row, same:real])


def test_what_is_between_audio_and_block_is_hidden_but_a_question_is_not(student: Student, tmp_path: Path) -> None:
    for placement in ("after_audio", "before_response"):
        block, batch = batch_of(load_student(student.source), tmp_path / placement, placement=placement)
        assert batch.hidden
        ids = batch.inputs["input_ids"][DEAF].tolist()
        audio = student.audio_indices(ids)
        until = ids.index(block.begin_id) if placement == "after_audio" else audio[-1] + 1
        assert batch.hidden.columns_BT[DEAF].nonzero()[:, 0].tolist() == list(range(audio[0], until))
        assert batch.hidden.from_B[DEAF] == ids.index(block.end_id)
        assert not batch.hidden.columns_BT[TEXT].any()


def test_rows_are_drawn_in_training_alone(student: Student, tmp_path: Path) -> None:
    block, batch = batch_of(student, tmp_path)
    model = CoatModel(student, block, DistillHeads(HeadsConfig(), student.hidden_size, {})).train()

    def loss(share: float, seed: int = 0) -> float:
        object.__setattr__(block, "config", block.config.model_copy(update={"hide_audio": share}))
        torch.manual_seed(seed)
        with torch.no_grad():
            return float(model(batch)["ce"])

    all_deaf, none_deaf = loss(1.0), loss(1e-9)
    mask_B1TT = mask_of(batch, [HEARING, DEAF, TEXT, CONVERSATION])
    with torch.no_grad():
        states_BTD = student.hidden_states(batch.inputs, batch.indices, mask_B1TT)
        by_hand = float(model.cross_entropy(states_BTD, batch.labels_BT, batch.before_R))
    assert all_deaf == pytest.approx(by_hand, rel=1e-6)
    assert all_deaf != pytest.approx(none_deaf, rel=1e-4)
    assert len({round(loss(0.5, seed), 4) for seed in range(12)}) > 3
    assert loss(0.5, 3) == loss(0.5, 3)
    model.eval()
    assert loss(1.0) == pytest.approx(none_deaf, rel=1e-6)


def test_a_run_is_resumed_and_its_held_out_figures_hear(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    def config(name: str, share: float = 0.5, **more: Any) -> TrainConfig:
        return toy_config(
            student_dir, shards_dir, tmp_path / name, steps=4, thinking={"count": 4, "hide_audio": share},
            evaluation={"shards": str(shards_dir), "every": 2}, run={"save_every": 1, "keep": 9}, **more,
        )  # fmt: skip

    train(config("whole"))
    calls: list[int] = []
    assert not train(config("cut"), stop=lambda: calls.append(1) or len(calls) >= 2).finished
    assert train(config("cut")).finished
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")

    still = {"optim": {"lr": 1e-30, "heads_lr": 1e-30}}  # nothing is learnt: held-out figures are those of one model
    train(config("hidden", 1.0, **still))
    train(config("heard", 0.0, **still))
    hidden, heard = (read_evaluations(tmp_path / name)[-1]["ce"] for name in ("hidden", "heard"))
    assert hidden == heard


def test_what_cannot_be_is_one_line(student_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"thinking: hide_audio 0\.5 without a block \(count 0\)"):
        toy_config(student_dir, tmp_path, tmp_path, thinking={"count": 0, "hide_audio": 0.5})
    for attention in ("eager", "flash_attention_2"):
        with pytest.raises(InputError, match=rf"hide_audio with student\.attention '{attention}'.* 'sdpa' alone takes"):
            toy_config(
                student_dir, tmp_path, tmp_path, thinking={"hide_audio": 0.5},
                student={"path": str(student_dir), "attention": attention, "dtype": "bfloat16"},
            )  # fmt: skip
    with pytest.raises(InputError, match=r"thinking\.hide_audio = 1\.5"):
        toy_config(student_dir, tmp_path, tmp_path, thinking={"hide_audio": 1.5})
