"""Answers that share one row are computed as if each stood alone, on all students; so are generated ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coat.analysis.interventions.generating import generated
from coat.analysis.interventions.packing import pack, pad_left
from coat.analysis.interventions.reading import divergence, read
from tests.analysis.interventions.worlds import TURNS, World

LAYOUTS: dict[str, dict[str, Any]] = {
    "behind the audio": {},
    "before the response": {"placement": "before_response"},
    "several turns": {"turns": TURNS},
    "at a rate": {"rate_hz": 4.0},
    "no block": {"count": 0},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_in_one_row_are_as_if_alone(folder: Path, layout: str) -> None:
    world = World.of(folder, **LAYOUTS[layout])
    prompts = world.prompts("high", "low, I should say", "a")
    inputs, asked = pack(world.model.student, prompts)
    with torch.no_grad():
        found = read(world.model, world.model.states(inputs)[0], asked)
        moved_R = divergence(world.model, found, found)
    summed = np.bincount(asked.answer_R.numpy(), found.log_prob_R.numpy())
    expected = [log_prob for prompt in prompts for log_prob in world.log_probs_alone(prompt)]
    np.testing.assert_allclose(summed, expected, atol=2e-4)
    assert len(set(np.round(expected, 4))) > 3  # they can be told apart
    assert moved_R.tolist() == [0.0] * len(moved_R)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_greedy_answers_are_those_of_transformers(folder: Path, layout: str) -> None:
    world = World.of(folder, **LAYOUTS[layout])
    with torch.no_grad():
        ids = generated(world.model, pad_left(world.model.student, world.prompts()), 6)
    texts = [world.model.student.tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]
    assert texts == world.trained.ask_many(world.questions, max_new_tokens=6)
    assert all(len(one) == 6 for one in ids) or len(set(map(len, ids))) > 1
