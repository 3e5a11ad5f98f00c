"""Where an answer took its evidence: rollout against its closed form, the causal measure on students made by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from coat.analysis.layers import decoder_layers
from coat.analysis.listening.asked import ANSWER, AUDIO, BLOCK, QUESTION, REST, Asked, ask
from coat.analysis.listening.effects import REPLACED, effects, mean_states, token_log_probabilities
from coat.analysis.listening.rollout import rollout
from coat.analysis.listening.session import ListeningSession, Sound
from coat.manifests import Clip
from coat.trainer.generation.generate import Question
from coat.trainer.model.coat_model import CoatModel
from tests.trainer.helpers import RATE, toy_sample

PROMPT = "Is it high, or is it low?"
TURNS = [("What is it?", "a tone"), ("Is it loud?", "no, soft")]
SAID = [5, 9, 7]


def clip(i: int, seconds: float = 1.0) -> Clip:
    return Clip(toy_sample(i, seconds=seconds)["audio"], RATE)


def asked_of(session: ListeningSession, i: int = 0, turns: object = (), seconds: float = 1.0) -> Asked:
    return ask(session.trained, clip(i, seconds), f"c{i}", Question(None, PROMPT, (), turns))  # type: ignore[arg-type]


@pytest.mark.parametrize("turns", [(), TURNS])
def test_positions_are_what_they_are_called(run: Path, turns: object) -> None:
    session = ListeningSession.load(str(run))
    student, block = session.trained.student, session.trained.block
    asked = asked_of(session, turns=turns)
    ids = np.array(asked.ids)
    assert student.tokenizer.decode(ids[asked.positions(QUESTION)]).strip() == PROMPT
    assert ids[asked.positions(BLOCK)].tolist() == block.new_ids
    assert asked.positions(AUDIO) == student.audio_indices(asked.ids)
    assert ids[list(asked.states_K)].tolist() == list(block.ids_K)
    assert ANSWER not in asked.roles
    assert REST in asked.roles


def test_rollout_is_its_closed_form(run: Path) -> None:
    """Queries of nothing attend evenly to all before: then each layer is half itself, half a mean."""
    session = ListeningSession.load(str(run))
    for layer in decoder_layers(session.model.student):
        for parameter in layer.self_attn.q_proj.parameters():  # type: ignore[union-attr]
            torch.nn.init.zeros_(parameter)
    asked = asked_of(session)
    config = session.model.student.model.config.text_config
    before = config._attn_implementation
    found = rollout(session.model, asked.inputs(torch.device("cpu"), SAID)).double().numpy()
    assert config._attn_implementation == before
    count = len(asked.ids) + len(SAID)
    even = np.tril(np.ones((count, count)))
    mixed = (even / even.sum(1, keepdims=True) + np.eye(count)) / 2
    expected = np.linalg.matrix_power(mixed, len(decoder_layers(session.model.student)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-6)


def attend_in(model: CoatModel, layers: list[int]) -> None:
    """In all other layers nothing is taken from any position."""
    for n, layer in enumerate(decoder_layers(model.student)):
        if n not in layers:
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("placement", ["after_audio", "before_response"])
def test_nothing_is_lost_where_nothing_is_attended(run: Path, placement: str) -> None:
    """Before the response the block's own end says the first token: it is not replaced."""
    session = ListeningSession.load(str(run))
    block = session.trained.block
    object.__setattr__(block, "config", block.config.model_copy(update={"placement": placement}))
    attend_in(session.model, [])
    asked = asked_of(session)
    for mean in (None, mean_states(session.model, [asked_of(session, i) for i in (1, 2)])):
        _, falls = effects(session.model, asked, SAID, mean)
        assert set(falls) == set(REPLACED)
        for role, fall_N in falls.items():
            assert torch.equal(fall_N, torch.zeros(len(SAID))), role


def log_probabilities_of(model: CoatModel, embedded_1TD: Tensor, first: int) -> Tensor:
    """By the language model alone, without any hook."""
    states = model.student.language_model(inputs_embeds=embedded_1TD, use_cache=False).last_hidden_state
    logits = model.student.logits(states[0, first - 1 : first - 1 + len(SAID)]).float()
    logits[:, model.block.new_ids] = -torch.inf
    return logits.log_softmax(-1)[torch.arange(len(SAID)), torch.tensor(SAID)]


@pytest.mark.parametrize("by", ["zero", "mean"])
def test_what_is_lost_is_what_the_same_pass_gives_on_other_embeddings(session: ListeningSession, by: str) -> None:
    """Where the first layer alone attends, replaced states are replaced embeddings: no hook is needed to know."""
    model = session.model
    attend_in(model, [0])
    asked = asked_of(session)
    others = [asked_of(session, i, seconds=1.0 + 0.2 * i) for i in (1, 2)]
    with torch.inference_mode():
        own, first = embeddings(model, asked, SAID), len(asked.ids)
        own_N = log_probabilities_of(model, own, first)
        mean = mean_states(model, others) if by == "mean" else None
        log_N, falls = effects(model, asked, SAID, mean)
        torch.testing.assert_close(log_N, own_N)
        assert falls[AUDIO].abs().max() > 1e-4
        for role in REPLACED:
            changed = own.clone()
            changed[:, asked.positions(role)] = expected_mean(model, others, role) if by == "mean" else 0.0
            expected_N = own_N - log_probabilities_of(model, changed, first)
            torch.testing.assert_close(falls[role], expected_N, atol=2e-5, rtol=1e-4)


def embeddings(model: CoatModel, asked: Asked, said: list[int]) -> Tensor:
    """What the first layer is given."""
    seen: list[Tensor] = []
    first = decoder_layers(model.student)[0]

    def look(_module: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen.append((args[0] if args else kwargs["hidden_states"]).clone())

    handle = first.register_forward_pre_hook(look, with_kwargs=True)
    model.student.model(**asked.inputs(torch.device("cpu"), said))
    handle.remove()
    return seen[0]


def expected_mean(model: CoatModel, others: list[Asked], role: str) -> Tensor:
    """`[P or 1, D]`; clips of several lengths have no positions in common in their audio."""
    found = [embeddings(model, other, [])[0, other.positions(role)] for other in others]
    return torch.stack([x.mean(0, keepdim=True) if role == AUDIO else x for x in found]).mean(0)


def test_the_block_is_used_through_itself_alone(session: ListeningSession) -> None:
    """Its embeddings are the same in every clip: what its mean over clips takes away was heard in later layers."""
    attend_in(session.model, [0])
    asked = asked_of(session)
    _, falls = effects(session.model, asked, SAID, mean_states(session.model, [asked_of(session, i) for i in (1, 2)]))
    assert falls[BLOCK].abs().max() < 1e-6
    assert falls[QUESTION].abs().max() < 1e-6


def test_probabilities_are_those_of_generation(session: ListeningSession) -> None:
    listened = session.listen(Sound(clip(1), "c1"), [PROMPT], max_new_tokens=5)
    (answer,) = listened.answers
    assert answer.answer == session.trained.ask((clip(1).samples_T, RATE), PROMPT, max_new_tokens=5)
    asked = ask(session.trained, clip(1), "c1", Question(None, PROMPT))
    inputs = asked.inputs(torch.device("cpu"))
    said = session.trained.generate(inputs, 5)[0].tolist()[: len(answer.tokens)]
    got = token_log_probabilities(session.model, asked, said)
    with torch.inference_mode():
        logits = session.model.student.model(**asked.inputs(torch.device("cpu"), said)).logits[0]
        logits[:, session.model.block.new_ids] = -torch.inf
    expected = logits[len(asked.ids) - 1 : -1].log_softmax(-1)[torch.arange(len(said)), torch.tensor(said)]
    torch.testing.assert_close(got, expected)
    assert [t.log_probability for t in answer.tokens] == pytest.approx(expected.tolist(), abs=1e-5)
    assert all(sum(token.attention.values()) == pytest.approx(1.0, abs=1e-5) for token in answer.tokens)


def test_a_mean_is_of_the_question_that_is_asked(session: ListeningSession) -> None:
    """It is kept for the same clips and question, and for nothing else."""
    others = [Sound(clip(i), f"o{i}") for i in (2, 3)]
    question, other_question = Question(None, PROMPT), Question(None, "And how loud is it?")
    first = session.mean_of(others, question)
    assert session.mean_of(others, question) is first
    second = session.mean_of(others, other_question)
    assert first
    assert second
    assert second.by_role[QUESTION][0].shape != first.by_role[QUESTION][0].shape
    one = session.mean_of(others[:1], other_question)
    assert one
    assert one.clips == 1
