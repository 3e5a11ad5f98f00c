"""Where states are read: all kinds of students, padding on either side, several turns, every placement of the block."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coat.analysis.probing.places import PLACES, layer_numbers, positions_of, read_places
from coat.manifests import InputError, ShardIndex
from coat.trainer.config.sections import DataConfig, HeadsConfig, ThinkingConfig
from coat.trainer.data.collator import Collator, EncodedSample
from coat.trainer.data.decoding import decode_sample
from coat.trainer.data.shard_reading import read_shard
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.heads import DistillHeads
from coat.trainer.model.thinking import BEGIN, END, ThinkingBlock
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student
from tests.trainer.helpers import toy_conversation, toy_sample, write_shards


def model_of(student: Student, **thinking) -> CoatModel:
    block = ThinkingBlock.add_to(student, ThinkingConfig(**{"count": 4, **thinking}))
    heads = DistillHeads(HeadsConfig(dim=16, layers=1, heads=2), student.hidden_size, {})
    return CoatModel(student, block, heads).eval()


def encoded_samples(model: CoatModel, folder: Path) -> list[EncodedSample]:
    """A short and a long clip, a conversation, and a clip without an answer."""
    samples = [toy_sample(0, seconds=0.5), toy_sample(1, seconds=1.3), toy_conversation(2), toy_sample(3)]
    samples[3]["meta"] = {"prompt": "High?", "response": None}
    write_shards(folder, samples)
    index = ShardIndex.read(str(folder))
    collator = Collator(model.student, model.block, index, list(index.experts))
    data = DataConfig(shards=str(folder))
    decoded = [decode_sample(raw, index) for shard in index.shards for raw in read_shard(index, shard)]
    return [replace(collator.encode(sample, data), targets={}) for sample in decoded]


def padded(model: CoatModel, encoded: list[EncodedSample], left: bool) -> tuple[dict, list[dict[str, list[int]]]]:
    """Inputs of a batch, and positions as they stand in it."""
    longest = max(len(one.ids) for one in encoded)
    pad = model.student.tokenizer.pad_token_id
    rows, masks, positions = [], [], []
    for one in encoded:
        padding = longest - len(one.ids)
        found = positions_of(model.student, model.block, one)
        rows.append([pad] * padding + one.ids if left else one.ids + [pad] * padding)
        masks.append([0] * padding + [1] * len(one.ids) if left else [1] * len(one.ids) + [0] * padding)
        positions.append({place: [p + padding * left for p in at] for place, at in found.items()})
    features = model.student.stack_features([one.features for one in encoded])
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks), **features}, positions


@pytest.mark.parametrize("placement", ["after_audio", "before_response"])
def test_states_are_those_of_each_clip_alone(folder: Path, tmp_path: Path, placement: str) -> None:
    """Of every student, whatever the padding: means of what transformers gives for the clip by itself."""
    model = model_of(load_student(str(folder)), placement=placement)
    encoded = encoded_samples(model, tmp_path)
    layers = layer_numbers("all", len(model.student.language_model.layers))  # type: ignore[arg-type]
    with torch.inference_mode():
        right, left = (read_places(model, *padded(model, encoded, side), layers, ()) for side in (False, True))
    for n, one in enumerate(encoded):
        inputs, (positions,) = padded(model, [one], left=False)
        with torch.no_grad():
            expected = model.student.model.model(**inputs, output_hidden_states=True).hidden_states
        for place in PLACES:
            assert positions[place], place
            for layer in layers:
                mean_D = expected[layer][0, positions[place]].float().mean(0).numpy()
                assert np.allclose(right[place, layer][n], mean_D, atol=2e-4), (place, layer)
                assert np.allclose(left[place, layer][n], mean_D, atol=2e-4), (place, layer)


def test_places_are_what_they_are_called(student: Student, tmp_path: Path) -> None:
    after = model_of(student)
    short, _, turns, unanswered = encoded_samples(after, tmp_path / "a")
    for one in (short, turns, unanswered):
        found = positions_of(student, after.block, one)
        tokens = {
            place: student.tokenizer.convert_ids_to_tokens([one.ids[p] for p in at]) for place, at in found.items()
        }
        assert set(tokens["audio"]) == {student.audio_token}
        assert [one.ids[p] for p in found["think"]] == list(after.block.ids_K)
        assert BEGIN not in tokens["question"]
        assert END not in tokens["question"]
        text = student.tokenizer.decode([one.ids[p] for p in found["question"]])
        assert "High" in text
        assert ("a tone" in text) == (one is turns)
        assert found["response"] == [one.response - 1]
        assert max(found["question"]) == one.response - 2
    before = model_of(student, placement="before_response")
    found = positions_of(student, before.block, encoded_samples(before, tmp_path / "b")[0])
    assert max(found["audio"]) < min(found["question"]) <= max(found["question"]) < min(found["think"])
    none = model_of(student, count=0)
    assert positions_of(student, none.block, encoded_samples(none, tmp_path / "c")[0])["think"] == []


def test_a_row_a_position_and_places_that_a_row_lacks(student: Student, tmp_path: Path) -> None:
    model = model_of(student)
    encoded = encoded_samples(model, tmp_path)
    inputs, positions = padded(model, encoded, left=False)
    positions[1]["think"] = []
    each = read_places(model, inputs, positions, [1], ("audio", "think"))
    means = read_places(model, inputs, positions, [1], ())
    assert set(each) == set(means) == {(place, 1) for place in PLACES}  # of one layer alone
    counts = [len(row["audio"]) for row in positions]
    assert len(each["audio", 1]) == sum(counts)
    starts = np.cumsum([0, *counts])
    of_clips = [each["audio", 1][a:b].mean(0) for a, b in itertools.pairwise(starts)]
    assert np.allclose(of_clips, means["audio", 1], atol=1e-6)
    assert (len(each["think", 1]), len(means["think", 1])) == (3 * 4, 3)
    assert np.array_equal(each["response", 1], means["response", 1])


def test_layers_are_named_by_their_input() -> None:
    assert layer_numbers("all", 3) == (0, 1, 2, 3)
    assert layer_numbers("last, 0,2", 3) == (0, 2, 3)
    for wrong in ("4", "-1", "x", ""):
        with pytest.raises(InputError, match=r"expected such as all, or 0,8,last"):
            layer_numbers(wrong, 3)
