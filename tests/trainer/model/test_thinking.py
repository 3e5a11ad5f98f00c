"""The block stands where it should, says so in the labels, and leaves the student as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from coat.manifests import InputError, ShardIndex
from coat.trainer.config.sections import ThinkingConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.shard_reading import iterate_shards
from coat.trainer.model.build import build_model
from coat.trainer.model.experts import experts_of
from coat.trainer.model.heads import think_times
from coat.trainer.model.thinking import ThinkingBlock, think_token
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student
from coat.trainer.students.unusable import UnusableInput
from tests.trainer.helpers import toy_config

ONE_SECOND = np.sin(np.arange(16000) / 20).astype(np.float32)


def test_after_audio(student: Student) -> None:
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=3))
    ids, positions = block.insert(student.prefix(ONE_SECOND, "What is it?"), 1.0)
    think = "<|audio_think_begin|><|audio_think_0|><|audio_think_1|><|audio_think_2|><|audio_think_end|>"
    assert f"<|AUDIO|><|audio_eos|>{think}\nWhat is it?<|im_end|>\n<|im_start|>assistant\n" in student.tokenizer.decode(
        ids
    )
    assert student.tokenizer.convert_ids_to_tokens([ids[p] for p in positions]) == [think_token(k) for k in range(3)]


def test_before_response(student: Student) -> None:
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=2, placement="before_response"))
    ids, positions = block.insert(student.prefix(ONE_SECOND, "What is it?"), 1.0)
    text = student.tokenizer.decode(ids)
    assert text.endswith(
        "<|im_start|>assistant\n<|audio_think_begin|><|audio_think_0|><|audio_think_1|><|audio_think_end|>"
    )
    assert positions == [len(ids) - 3, len(ids) - 2]


def test_count_by_rate_follows_the_audio(student: Student) -> None:
    block = ThinkingBlock.add_to(student, ThinkingConfig(rate_hz=5.0))
    assert len(block.ids_K) == 15  # 3 s is all that the student hears
    assert [block.think_positions(s) for s in (0.1, 1.0, 1.01, 3.0)] == [1, 5, 6, 15]


def test_no_block(student: Student) -> None:
    rows = student.model.get_input_embeddings().num_embeddings
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=0))
    prefix = student.prefix(ONE_SECOND, "What is it?")
    assert block.insert(prefix, 1.0) == (prefix.ids, [])
    assert block.new_ids == []
    assert student.model.get_input_embeddings().num_embeddings == rows


@pytest.mark.parametrize("count", [0, 3])
@torch.no_grad()
def test_states_of_the_audio_are_distilled_where_that_is_asked_for(
    student_dir: Path, shards_dir: Path, tmp_path: Path, count: int
) -> None:
    """With and without a block: each sample alone, its states taken by hand, gives the batch's losses."""
    config = toy_config(student_dir, shards_dir, tmp_path, thinking={"count": count, "states": "audio"})
    index = ShardIndex.read(str(shards_dir))
    model = build_model(config, experts_of(config, index)).eval()
    collator = Collator(model.student, model.block, index, list(model.heads.specs))
    items = [collator.encode(s, config.data) for s, _ in zip(iterate_shards(str(shards_dir)), range(4), strict=False)]
    batch = collator.collate(items)
    sums = model(batch)
    by_hand = dict.fromkeys(model.heads.specs, 0.0)
    for item in items:
        alone = collator.collate([item])
        tokens = model.student.tokenizer.convert_ids_to_tokens(alone.inputs["input_ids"][0])
        heard = torch.tensor([token == "<|AUDIO|>" for token in tokens])
        assert int(heard.sum()) == int(item.seconds * 25)
        states_1TD, _ = model.states(alone.inputs)
        states_1KD = states_1TD[:, heard]
        mask_1K = torch.ones(states_1KD.shape[:2], dtype=torch.bool)
        for name, loss in model.heads(states_1KD, mask_1K, alone.seconds_B, alone.targets).items():
            by_hand[name] += float(loss)
    assert {name: float(sums[name]) for name in by_hand} == pytest.approx(by_hand, rel=1e-4)
    assert all(by_hand.values())


def test_times_of_the_audio_positions_are_the_towers_own() -> None:
    """One position per 40 ms, from its middle."""
    times_BK = think_times(torch.ones(1, 50, dtype=torch.bool), torch.tensor([2.0]))
    assert torch.allclose(times_BK[0], torch.arange(50) * 0.04 + 0.02)


def test_nothing_is_distilled_without_states_to_read(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    index = ShardIndex.read(str(shards_dir))
    config = toy_config(student_dir, shards_dir, tmp_path, thinking={"count": 0})
    assert experts_of(config, index) == {}


def test_the_student_without_the_block_is_unchanged(student_dir: Path, student: Student) -> None:
    prefix = student.prefix(ONE_SECOND, "What is it?")
    inputs = {"input_ids": torch.tensor([prefix.ids]), **prefix.features}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    original = load_student(str(student_dir))
    ThinkingBlock.add_to(student, ThinkingConfig(count=5))
    with torch.inference_mode():
        before, after = original.model(**inputs).logits, student.model(**inputs).logits
        ours = student.logits(student.hidden_states(inputs))
    rows = before.shape[-1]
    assert after.shape[-1] > rows
    assert torch.equal(before, after[..., :rows])
    assert torch.equal(after, ours)


def test_new_rows_are_near_the_mean_and_distinct(student: Student) -> None:
    old = student.model.get_input_embeddings().weight.detach().clone()
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    new = student.model.get_input_embeddings().weight[block.new_ids]
    assert (new - old.mean(0)).abs().max() < 0.2 * old.std()
    assert len({tuple(row.tolist()) for row in new}) == 6


def test_prompts_with_special_tokens_are_refused(student: Student) -> None:
    for token in ("<|AUDIO|>", "<|im_end|>"):
        with pytest.raises(InputError, match="special token"):
            student.prefix(ONE_SECOND, f"hear {token} this")


def test_a_students_own_words_stay_text_and_are_said_once(student: Student) -> None:
    """`<think>` of a reasoning student is one token, and no markup; of another student it is letters."""
    lines: list[str] = []
    student.chat.log = lines.append
    spelled = student.chat.response_ids("<think>a</think>")
    assert not lines
    student.tokenizer.add_tokens(["<think>", "</think>", "<|unsaid|>"])
    student.model.resize_token_embeddings(len(student.tokenizer), mean_resizing=False)
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    ids = student.chat.response_ids("<think>a</think>")
    opened, closed = student.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert (ids[0], ids[-2], len(ids) < len(spelled)) == (opened, closed, True)
    assert student.tokenizer.decode(ids, skip_special_tokens=True) == "<think>a</think>"
    prompted = student.prefix(ONE_SECOND, "What does <think> mean?").ids
    assert opened in prompted
    assert not {*ids, *prompted} & set(block.new_ids)  # no position of the block comes from a text
    assert [line.split(",")[0] for line in lines] == ["texts hold <think>", "texts hold </think>"]
    student.chat.response_ids("<think>b")
    assert len(lines) == 2
    for token in ["<|unsaid|>", *student.tokenizer.convert_ids_to_tokens(block.new_ids)]:
        with pytest.raises(UnusableInput, match="special token"):
            student.chat.response_ids(f"so {token} it is")


def test_audio_that_cannot_be_heard_whole_is_refused(student: Student) -> None:
    with pytest.raises(UnusableInput, match=r"0\.012 s gives no audio positions"):
        student.prefix(np.ones(192, dtype=np.float32), "?")
    with pytest.raises(UnusableInput, match=r"3\.00 s, but this qwen2_audio hears at most 3 s"):
        student.prefix(np.ones(3 * 16000 + 1, dtype=np.float32), "?")
    audio_id = student.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    assert student.prefix(np.ones(3 * 16000, dtype=np.float32), "?").ids.count(audio_id) == 75
    assert student.prefix(np.ones(student.min_samples, dtype=np.float32), "?").ids.count(audio_id) == 2


def test_unknown_students_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(InputError, match="'whisper' is not one of qwen2_audio"):
        load_student(str(tmp_path))
    with pytest.raises(InputError, match=r"no config\.json"):
        load_student(str(tmp_path.parent))
