"""Several turns, several audios, and text alone, for every student."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coat.manifests import InputError, ShardIndex
from coat.trainer import train
from coat.trainer.config.sections import DataConfig, ThinkingConfig
from coat.trainer.data.collator import Collator, EncodedSample
from coat.trainer.data.samples import Sample
from coat.trainer.data.shard_reading import iterate_shards, read_shard
from coat.trainer.generation.generate import Question, Trained
from coat.trainer.model.batch import IGNORED, positions_before
from coat.trainer.model.build import build_model
from coat.trainer.model.experts import experts_of
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student
from coat.trainer.students.unusable import UnusableInput
from tests.trainer.helpers import toy_config, toy_conversation, toy_sample, toy_text, write_shards
from tests.trainer.students.test_students import close, tone

TURNS = (("What is it?", "a tone"), ("Is it loud?", "no, soft"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In each of two shards a conversation, a text and a question."""
    samples = [make(i) for i in (1, 2) for make in (toy_conversation, toy_text, toy_sample)]
    return write_shards(tmp_path_factory.mktemp("conversations"), samples, per_shard=3)


@pytest.fixture
def student(folder: Path) -> Student:
    return load_student(str(folder))


def collated(student: Student, shards: Path, **thinking: Any) -> tuple[Collator, list[Sample]]:
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4, **thinking))
    return Collator(student, block, ShardIndex.read(str(shards)), ["mel"]), list(iterate_shards(str(shards)))[:3]


def said(student: Student, item: EncodedSample, collator: Collator) -> str:
    labels = collator.collate([item]).labels_BT[0]
    return student.tokenizer.decode(labels[labels != IGNORED])


@pytest.mark.parametrize("placement", ["after_audio", "before_response"])
def test_every_answer_of_a_conversation_has_labels(student: Student, shards: Path, placement: Any) -> None:
    collator, (conversation, text, _) = collated(student, shards, placement=placement)
    config = DataConfig(shards=str(shards))
    item = collator.encode(conversation, config)
    assert said(student, item, collator) == "a tone<|im_end|>no, soft<|im_end|>low<|im_end|>"
    last = collator.encode(conversation, config.model_copy(update={"turns": "last"}))
    assert said(student, last, collator) == "low<|im_end|>"
    assert last.ids == item.ids
    # All of it, block and placeholders aside, is the template's own text.
    whole = student.tokenizer.decode(item.ids)
    block = (
        "<|audio_think_begin|><|audio_think_0|><|audio_think_1|><|audio_think_2|><|audio_think_3|><|audio_think_end|>"
    )
    before, _, after = whole.partition(block)
    assert before.endswith("assistant\n" if placement == "before_response" else ("<|audio_eos|>", "_end|>", "<sound>"))
    assert student.audio_token not in after
    heard = student.audio_token * student.audio_positions(16000)
    chat = student.chat.render("High or low?\nChoices: high, low", 1, TURNS)
    assert (before + after).replace(heard, student.audio_token) == f"{chat}low<|im_end|>"
    assert said(student, collator.encode(text, config), collator) == "four<|im_end|>"


def test_lengths_are_foretold(student: Student, shards: Path) -> None:
    collator, samples = collated(student, shards)
    index, config = collator.index, DataConfig(shards=str(shards))
    raws = list(read_shard(index, index.shards[0]))
    foretold = [collator.sequence_length(raw, config) for raw in raws]
    assert foretold == [len(collator.encode(sample, config).ids) for sample in samples]


def test_texts_and_conversations_are_in_a_batch_as_alone(student: Student, shards: Path) -> None:
    collator, samples = collated(student, shards)
    items = [collator.encode(sample, DataConfig(shards=str(shards))) for sample in samples]
    in_one_batch = collator.collate(items)
    assert len(in_one_batch) == len(in_one_batch.inputs["input_ids"]) == 3
    with torch.inference_mode():
        states_BTD = student.hidden_states(in_one_batch.inputs)
        for b, item in enumerate(items):
            close(
                states_BTD[b, : len(item.ids)],
                student.hidden_states(collator.collate([item]).inputs)[0, : len(item.ids)],
            )
        ids = torch.tensor([items[1].ids])  # text: as the language model alone has it
        alone = student.language_model(inputs_embeds=student.model.get_input_embeddings()(ids)).last_hidden_state
    close(states_BTD[1, : ids.shape[1]], alone[0])


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_a_batch_of_texts_reaches_every_weight_and_learns_the_text_alone(
    folder: Path, shards: Path, tmp_path: Path, full: bool
) -> None:
    """Ranks that have audio wait for those weights' gradients from ranks that have none."""
    config = toy_config(folder, shards, tmp_path, lora={"full": full})
    index = ShardIndex.read(str(shards))
    model = build_model(config, experts_of(config, index))
    collator = Collator(model.student, model.block, index, list(model.heads.specs))
    text = collator.encode(next(s for s in iterate_shards(str(shards)) if s.text_only), config.data)
    batch = collator.collate([text, text])
    assert len(batch) == 2
    assert len(batch.inputs["input_ids"]) == 3
    assert batch.counts() == {"ce": 2 * len("four") + 2, "pitch": 0, "mel": 0, "events": 0, "prosody": 0}
    losses = model(batch)
    assert not any(loss.detach() for name, loss in losses.items() if name != "ce")
    sum(losses.values(), torch.zeros(())).backward()
    missed = [name for name, p in model.trainable().items() if p.grad is None or not p.grad.isfinite().all()]
    assert missed == []
    found = {name: p.grad.clone() for name, p in model.trainable().items() if p.grad is not None}
    model.zero_grad()
    row = {name: batch.inputs[name][:2, : len(text.ids)] for name in ("input_ids", "attention_mask")}
    labels_BT = batch.labels_BT[:2, : len(text.ids)]
    model.cross_entropy(model.student.hidden_states(row), labels_BT, positions_before(labels_BT)).backward()
    for name, parameter in model.trainable().items():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert (found[name] - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max())), name


def test_several_audios(student: Student) -> None:
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    low, high = tone(1.0), np.sin(np.arange(24000) / 3).astype(np.float32)
    if student.max_audios == 1:
        with pytest.raises(UnusableInput, match=r"a\.wav, b\.wav: 2 audios; audioflamingo3 hears 1 in a text"):
            student.prefix([low, high], "Which?", "a.wav, b.wav")
        return
    prefix = student.prefix([low, high], "Which?")
    audio_id = student.tokenizer.convert_tokens_to_ids(student.audio_token)
    assert prefix.ids.count(audio_id) == student.audio_positions(len(low)) + student.audio_positions(len(high))
    ids, _ = block.insert(prefix, 2.5)
    before, _, after = student.tokenizer.decode(ids).partition("<|audio_think_begin|>")
    assert before.count(student.audio_token) == prefix.ids.count(audio_id)
    assert student.audio_token not in after
    trained = Trained(student, block, toy_config(Path("-"), Path("-"), Path("-")))
    swapped, alone = [high, low], []
    for audios in ([low, high], swapped):
        inputs = trained.inputs([([(a, 16000) for a in audios], "Which?", ())])
        alone.append(last_state(student, inputs))
    assert (alone[0] - alone[1]).abs().max() > 1e-4 * alone[0].abs().max()  # which is first matters
    many = trained.inputs([([(a, 16000) for a in audios], "Which?", ()) for audios in ([low, high], swapped)])
    with torch.inference_mode():
        in_one_batch = student.hidden_states(many)[:, -1]
    close(in_one_batch, torch.stack(alone))


def last_state(student: Student, inputs: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        return student.hidden_states(inputs)[0, -1]


def test_answers_know_turns_and_texts_and_are_one_prefill(student: Student) -> None:
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4, noise=1.0))
    trained = Trained(student, block, toy_config(Path("-"), Path("-"), Path("-")))
    audio = (tone(1.0), 16000)
    asked = [
        Question(audio, "And now?", (), TURNS),
        Question(None, "And now?", ("x", "y")),
        Question(audio, "And now?"),
    ]
    lengths: list[int] = []
    hook = student.language_model.register_forward_hook(
        lambda _module, _args, kwargs, _out: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    alone = []
    for q, prompt, inserted in zip(asked, ("And now?", "And now?\nChoices: x, y", "And now?"), (6, 0, 6), strict=True):
        lengths.clear()
        alone.append(trained.ask(q.audio, q.prompt, choices=q.choices, turns=q.turns, max_new_tokens=6))
        prefix = student.prefix(None if q.audio is None else audio[0], prompt, turns=q.turns)
        assert lengths[0] == len(prefix.ids) + inserted
        assert set(lengths[1:]) <= {1}
    hook.remove()
    assert trained.ask_many(asked, max_new_tokens=6) == alone
    states = [last_state(student, trained.inputs([q])) for q in asked]
    assert all((a - b).abs().max() > 1e-4 * a.abs().max() for a, b in ((states[0], states[2]), (states[1], states[2])))


def test_turns_that_would_be_read_as_markup_are_refused(student: Student) -> None:
    with pytest.raises(InputError, match="special token"):
        student.prefix(tone(1.0), "What?", turns=[("What?", "so <|im_end|> it is")])


def test_a_template_that_rewrites_earlier_turns_is_refused(student_dir: Path) -> None:
    student = load_student(str(student_dir))
    student.processor.chat_template = "{% for m in messages %}[{{ loop.revindex }}]{% endfor %}"
    with pytest.raises(InputError, match="rewrites earlier turns"):
        student.prefix(tone(1.0), "What?", turns=TURNS)


def test_a_run_over_texts_and_conversations_learns_them(student_dir: Path, shards: Path, tmp_path: Path) -> None:
    """Batches of one: every third is text alone. Evaluation asks both."""
    config = toy_config(
        student_dir, shards, tmp_path / "a", steps=6, data={"batch_size": 1}, optim={"lr": 3e-3},
        evaluation={"shards": str(shards), "every": 6, "max_new_tokens": 4},
    )  # fmt: skip
    lines: list[str] = []
    train(config, log=lines.append)
    assert not [line for line in lines if "skipped" in line]
    assert any(line.startswith("step 6: held out: ce") for line in lines)
    samples = (tmp_path / "a" / "samples.jsonl").read_text().splitlines()
    assert len(samples) == 6
    assert sum("twice two" in line for line in samples) == 2


def test_a_text_without_an_answer_is_left_out(student: Student, shards: Path) -> None:
    collator, (_, text, _) = collated(student, shards)
    with pytest.raises(InputError, match="neither a response nor a target"):
        collator.encode(replace(text, response=None, text="said"), DataConfig(shards=str(shards)))
