"""Interventions on all four students: what is hidden is not read, own states change nothing, any padding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coat.analysis.interventions.attending import Hidden, hidden, hiding
from coat.analysis.interventions.generating import generated
from coat.analysis.interventions.kinds import HIDDEN, WHATS, Intervention, of_donors, of_noise
from coat.analysis.interventions.packing import Prompt, pack, pad_left
from coat.analysis.interventions.places import AUDIO, BLOCK, find, positions_of
from coat.analysis.interventions.student import Intervener, Question
from coat.analysis.layers import decoder_layers, replaced
from coat.trainer.generation.generate import Question as Asked
from tests.analysis.interventions.worlds import TURNS, World
from tests.trainer.helpers import RATE

LAYOUTS: dict[str, dict[str, Any]] = {
    "behind the audio": {},
    "before the response": {"placement": "before_response"},
    "several turns": {"turns": TURNS},
}


def batch_of(world: World, *answers: str) -> list[Question]:
    """Each with the next one's sound as its donor."""
    own = world.prompts(*answers)
    donors = [Asked(world.questions[i - 1].audio, q.prompt, (), q.turns) for i, q in enumerate(world.questions)]
    theirs = [Prompt(*world.trained.encode(world.clips(q), q)) for q in donors]
    return [Question(i, a, b, 0) for i, (a, b) in enumerate(zip(own, theirs, strict=True))]


def layers_of(world: World) -> list[int]:
    return list(range(len(decoder_layers(world.model.student))))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hidden_block_gives_nothing_away(folder: Path, layout: str) -> None:
    """Whatever its states are, the answer is the same; and its words are those of a prompt without the block's columns.

    The second truth is a pass of transformers on a shorter sequence that never had a block, at the same positions.
    """
    world = World.of(folder, **LAYOUTS[layout])
    model, layers = world.model, layers_of(world)
    prompts = world.prompts("high", "low")
    inputs, asked = pack(model.student, prompts)
    at = find(model, BLOCK, inputs["input_ids"])
    with torch.inference_mode(), hidden(model.student, hiding(model, BLOCK, inputs["input_ids"]), layers):
        clean_BTD = model.states(inputs)[0]
        noise = {n: torch.randn(*at.positions_BP.shape, clean_BTD.shape[-1]) for n in layers}
        with replaced(model.student, at.positions_BP, noise):
            noisy_BTD = model.states(inputs)[0]
    behind_R = asked.before_R
    assert torch.equal(clean_BTD.flatten(0, 1)[behind_R], noisy_BTD.flatten(0, 1)[behind_R])
    for b, prompt in enumerate(prompts):
        kept = [i for i in range(len(prompt.ids)) if i not in positions_of(model, BLOCK, prompt.ids)]
        alone = {
            "input_ids": torch.tensor([[prompt.ids[i] for i in kept]]),
            "attention_mask": torch.ones(1, len(kept), dtype=torch.long),
            "position_ids": torch.tensor([kept]),
            **prompt.features,
        }
        with torch.inference_mode():
            never_TD = model.student.model.model(**alone).last_hidden_state[0]
        torch.testing.assert_close(clean_BTD[b, len(prompt.ids) - 1], never_TD[-1], atol=2e-5, rtol=1e-4)
    with torch.inference_mode():
        assert not torch.allclose(model.states(inputs)[0].flatten(0, 1)[behind_R], clean_BTD.flatten(0, 1)[behind_R])


def test_hidden_audio_is_heard_through_the_block_alone(folder: Path) -> None:
    """With another clip's block, and the audio hidden, nothing is left of the own clip: the answer is the donor's."""
    world = World.of(folder, sounds=[np.zeros(RATE, np.float32)] * 2)
    model, layers = world.model, layers_of(world)
    world.questions[1] = world.questions[0]
    prompts = world.prompts("high")
    inputs, asked = pack(model.student, prompts)
    what, at = hiding(model, AUDIO, inputs["input_ids"]), find(model, BLOCK, inputs["input_ids"])
    intervener, audio = Intervener(model, [], layers), find(model, AUDIO, inputs["input_ids"])
    heard = {0: torch.randn(*audio.positions_BP.shape, model.student.hidden_size)}  # tiny towers hardly hear a clip
    with (
        torch.inference_mode(),
        hidden(model.student, what, layers),
        replaced(model.student, audio.positions_BP, heard),
    ):
        clean_BTD, kept = intervener.keep(inputs, {BLOCK: at})
        swapped = of_donors({n: t.flip(0) for n, t in kept[BLOCK].items()}, at.matching(at))
        with replaced(model.student, at.positions_BP, swapped):
            swapped_BTD = model.states(inputs)[0]
    before_R2 = asked.before_R.view(2, -1)
    clean, moved = (s.flatten(0, 1)[before_R2] for s in (clean_BTD, swapped_BTD))
    apart = (clean[0] - clean[1]).norm()
    assert apart > 1e-4
    assert (moved - clean.flip(0)).norm() < 0.02 * apart


def test_own_states_change_nothing_and_generation_follows(folder: Path) -> None:
    follow(World.of(folder))


@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_so_with_other_layouts(student_dir: Path, layout: str) -> None:
    follow(World.of(student_dir, **LAYOUTS[layout]))


def follow(world: World) -> None:
    """All interventions at once; those of equal clips are none. Generated with a cache as without, by whole passes."""
    model, names = world.model, [f"{place}:{what}" for place in (BLOCK, AUDIO) for what in WHATS]
    intervener = Intervener(model, [Intervention.parse(name) for name in names], layers_of(world), max_new_tokens=3)
    questions = batch_of(world, "high", "low")
    intervener.learn_means(lambda: [[q.own for q in questions]])
    same = [Question(q.number, q.own, q.own, 0) for q in questions]
    measured = intervener.measure(same)
    for name in ("block:other", "audio:other"):
        assert measured.after[name].divergence_R is not None
        assert float(measured.after[name].divergence_R.max()) < 1e-6  # type: ignore[union-attr]
        assert measured.after[name].texts == measured.untouched.texts
    assert float(measured.apart_B.max()) < 1e-4
    measured = intervener.measure(questions)
    moved = {name: float(seen.divergence_R.max()) for name, seen in measured.after.items()}  # type: ignore[union-attr]
    assert all(value > 1e-7 for value in moved.values()), moved
    left = pad_left(model.student, [q.own for q in questions])
    one = Intervention(BLOCK, HIDDEN)
    with torch.inference_mode(), intervener.applied(one, left["input_ids"], None):
        cached = generated(model, left, 3)
    assert cached == measured.after["block:hidden"].texts == [by_whole_passes(world, q.own, 3) for q in questions]


def by_whole_passes(world: World, prompt: Prompt, tokens: int) -> list[int]:
    """Greedily with a hidden block: every token by a pass of its own over all before it."""
    model, said = world.model, []
    for _ in range(tokens):
        inputs, asked = pack(model.student, [Prompt(prompt.ids, prompt.features, ((*said, 0),))])
        what = hiding(model, BLOCK, inputs["input_ids"][:, : len(prompt.ids)])
        with torch.inference_mode(), hidden(model.student, what, layers_of(world)):
            logits_V = model.student.logits(model.states(inputs)[0][0, int(asked.before_R[-1])])
            logits_V[model.block.new_ids] = -torch.inf
        said.append(int(logits_V.argmax()))
        if said[-1] in model.student.chat.stop_ids:
            return said[:-1]
    return said


def test_a_batch_is_as_its_rows_one_by_one(student_dir: Path) -> None:
    """Clips of unequal length, a block at a rate: donors' states are matched by place, noise is by row alone."""
    world = World.of(student_dir, rate_hz=6.0)
    names = ("block:other", "block:zero", "block:noise", "block:hidden", "audio:other", "audio:noise")
    intervener = Intervener(world.model, [Intervention.parse(n) for n in names], layers_of(world))
    questions = batch_of(world, "high", "low, or so")
    counts = [len(positions_of(world.model, BLOCK, q.own.ids)) for q in questions]
    assert len(set(counts)) == 3
    whole = intervener.measure(questions)
    alone = [intervener.measure([q]) for q in questions]
    for name in names:
        expected = torch.cat([one.after[name].read.log_prob_R for one in alone])
        torch.testing.assert_close(whole.after[name].read.log_prob_R, expected, atol=1e-4, rtol=1e-4)


def test_nothing_is_kept_that_was_not_asked_for(student_dir: Path) -> None:
    """Of a pass: the asked layers and places, in memory of their own; no view that holds all positions."""
    world = World.of(student_dir)
    inputs, _ = pack(world.model.student, world.prompts("high"))
    at = find(world.model, BLOCK, inputs["input_ids"])
    with torch.inference_mode():
        _, kept = Intervener(world.model, [], [1]).keep(inputs, {BLOCK: at})
    assert {place: list(states) for place, states in kept.items()} == {BLOCK: [1]}
    assert kept[BLOCK][1].untyped_storage().nbytes() == 3 * 6 * world.model.student.hidden_size * 4


def test_noise_is_as_long_as_what_it_replaces() -> None:
    own = {0: torch.randn(2, 5, 8), 3: torch.randn(2, 5, 8) * 7}
    made = of_noise(own, (5, 4), (11, 12))
    again = of_noise({3: own[3][1:]}, (4,), (12,))
    for layer, states_BPD in made.items():
        torch.testing.assert_close(states_BPD[0].norm(dim=-1), own[layer][0].norm(dim=-1))
        torch.testing.assert_close(states_BPD[1, :4].norm(dim=-1), own[layer][1, :4].norm(dim=-1))
        assert torch.equal(states_BPD[1, 4], states_BPD[1, 3])
        cosine = torch.cosine_similarity(states_BPD, own[layer], dim=-1)
        assert cosine.abs().max() < 0.99
    assert torch.equal(made[3][1], again[3][0])


def test_columns_are_hidden_from_what_is_behind_and_from_nothing_else() -> None:
    columns_BT = torch.tensor([[False, True, True, False, False]])
    what = Hidden(columns_BT, torch.tensor([3]))
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    found = what.within(mask)[0, 0]
    expected = mask[0, 0].clone()
    expected[3:, 1:3] = False
    assert torch.equal(found, expected)
    step = what.within(torch.ones(1, 1, 1, 7, dtype=torch.bool))  # a new token, with a cache of six
    assert step[0, 0, 0].tolist() == [True, False, False, True, True, True, True]
