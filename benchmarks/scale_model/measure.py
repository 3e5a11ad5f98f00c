"""What is read off a trained model: answers, and what they depend on.

B batch, T positions of a sequence, K positions of the block, D dim of the states, L layers. A batch has one question
about B clips, so that all its sequences are of one form.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.scale_model.corpus import QUESTIONS
from benchmarks.scale_model.data import Asker
from coat.trainer.batches import IGNORED, Batch
from coat.trainer.model import CoatModel

BATCH = 100  # clips
LayerInputs = list[Tensor]  # L of [B, T, D]


@dataclass(frozen=True)
class Answers:
    """Of one batch. `right`: every token of the response, and its end, are what greedy generation would give."""

    right: list[bool]
    said: list[int]  # the first token


@torch.inference_mode()
def answers(model: CoatModel, batch: Batch) -> Answers:
    """One pass over the true response: greedy generation gives it where every token of it is the most likely one."""
    states_BTD, _ = model.states(batch.inputs)
    asked_BT = batch.labels_BT[:, 1:] != IGNORED
    logits_RV = model.student.logits(states_BTD[:, :-1][asked_BT])
    logits_RV[:, model.block.new_ids] = -torch.inf  # as generation suppresses them
    said_BT = torch.full_like(batch.labels_BT[:, 1:], IGNORED)
    said_BT[asked_BT] = logits_RV.argmax(-1)
    right_B = (said_BT == batch.labels_BT[:, 1:]).all(1)
    first_B = asked_BT.int().argmax(1)
    return Answers(right_B.tolist(), said_BT[torch.arange(len(batch)), first_B].tolist())


def batches(asker: Asker, question: str, clips: int | None = None) -> Iterator[Batch]:
    count = min(len(asker.clips), clips or len(asker.clips))
    for start in range(0, count, BATCH):
        yield asker.batch([(clip, question) for clip in range(start, min(start + BATCH, count))])


def accuracy(model: CoatModel, asker: Asker, questions: Sequence[str]) -> dict[str, str]:
    """By question, a 1 or 0 for each clip: right or wrong."""
    return {
        q: "".join(str(int(r)) for batch in batches(asker, q) for r in answers(model, batch).right) for q in questions
    }


def majority(truths: Sequence[Mapping[str, Any]], question: str) -> float:
    """Accuracy of always giving the most common answer of these clips."""
    said = [truth[question] for truth in truths]
    return max(said.count(answer) for answer in QUESTIONS[question].answers) / len(said)


# Causal tests: hidden states of some positions are replaced at the input of every layer, and the answers looked at.
# What is put there comes from a pass of its own, without any replacing.


@torch.inference_mode()
def layer_inputs(model: CoatModel, batch: Batch) -> LayerInputs:
    kept: LayerInputs = []
    with hooked(model, lambda _, states_BTD: kept.append(states_BTD.clone())):
        model.states(batch.inputs)
    return kept


@contextmanager
def replaced(model: CoatModel, where_BK: Tensor, states_LBKD: Sequence[Tensor]) -> Iterator[None]:
    index_BKD = where_BK[..., None].expand(-1, -1, states_LBKD[0].shape[-1])
    with hooked(model, lambda layer, states_BTD: states_BTD.scatter(1, index_BKD, states_LBKD[layer])):
        yield


@contextmanager
def hooked(model: CoatModel, change: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """`change` gets each decoder layer's number and input, and may give another one."""

    def hook_of(layer: int) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                new = change(layer, args[0])
                return None if new is None else ((new, *args[1:]), kwargs)
            new = change(layer, kwargs["hidden_states"])
            return None if new is None else (args, {**kwargs, "hidden_states": new})

        return hook

    layers = cast(nn.ModuleList, model.student.language_model.layers)
    handles = [layer.register_forward_pre_hook(hook_of(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def block_at(model: CoatModel, batch: Batch) -> Tensor:
    """`[B, K + 2]`: the whole block, with the tokens that begin and end it."""
    return where(batch, model.block.new_ids)


def audio_at(model: CoatModel, batch: Batch) -> Tensor:
    return where(batch, [model.student.tokenizer.convert_tokens_to_ids(model.student.audio_token)])


def where(batch: Batch, ids: Sequence[int]) -> Tensor:
    found_BT = torch.isin(batch.inputs["input_ids"], torch.tensor(ids))
    return found_BT.nonzero()[:, 1].view(len(batch), -1)


INSTEAD: Mapping[str, Callable[[Tensor], Tensor]] = {  # of [B, K, D]
    "other clip": lambda states_BKD: states_BKD.roll(1, 0),
    "batch mean": lambda states_BKD: states_BKD.mean(0, keepdim=True).expand_as(states_BKD).contiguous(),
    "zero": torch.zeros_like,
}


def causal(model: CoatModel, asker: Asker, questions: Sequence[str], clips: int) -> dict[str, Any]:
    """By question and place (block, audio): answers with these states replaced.

    `accuracy`; `changed`: the share of answers that are others now; `donor`: of the clips whose donor has another
    truth (other clip alone), the share that now give the donor's.
    """
    found: dict[str, Any] = {}
    for question in questions:
        sums: dict[str, dict[str, list[float]]] = {}
        for batch in batches(asker, question, clips):
            before, kept = answers(model, batch), layer_inputs(model, batch)
            truth_B = torch.tensor([int(row[row != IGNORED][0]) for row in batch.labels_BT])
            add(sums, "untouched", "accuracy", before.right)
            for place, instead, at_BK in interventions(model, batch):
                index_BKD = at_BK[..., None].expand(-1, -1, kept[0].shape[-1])
                states_LBKD = [INSTEAD[instead](states_BTD.gather(1, index_BKD)) for states_BTD in kept]
                with replaced(model, at_BK, states_LBKD):
                    after = answers(model, batch)
                name = f"{place}: {instead}"
                add(sums, name, "accuracy", after.right)
                add(sums, name, "changed", [a != b for a, b in zip(after.said, before.said, strict=True)])
                if instead == "other clip":
                    donor_B = truth_B.roll(1, 0)
                    follows = torch.tensor(after.said) == donor_B
                    add(sums, name, "donor", follows[donor_B != truth_B].tolist())
        found[question] = {
            name: {what: round(sum(values) / len(values), 4) for what, values in part.items()}
            for name, part in sums.items()
        }
    return found


def interventions(model: CoatModel, batch: Batch) -> Iterator[tuple[str, str, Tensor]]:
    if model.block.ids_K:
        for instead in INSTEAD:
            yield "block", instead, block_at(model, batch)
    yield "audio", "other clip", audio_at(model, batch)


def add(sums: dict[str, dict[str, list[float]]], name: str, what: str, values: Sequence[float]) -> None:
    sums.setdefault(name, {}).setdefault(what, []).extend(values)
