"""What is read off a trained model: answers, and what they depend on.

B clips of a batch, T positions of a row, Q questions, K positions that are replaced, D dim of the states, L layers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.scale_model.corpus import ASKABLE
from benchmarks.scale_model.data import Asker
from coat.trainer.model.batch import Batch
from coat.trainer.model.coat_model import CoatModel

BATCH = 100  # clips
LayerInputs = list[Tensor]  # L of [B, T, D]


@dataclass(frozen=True)
class Answers:
    """`right`: response and end are what greedy generation would give. `said`: the token at the response's place."""

    right_BQ: Tensor  # bool
    said_BQ: Tensor
    states_BQD: Tensor  # of which it is said


@torch.inference_mode()
def answers(model: CoatModel, asker: Asker, batch: Batch) -> Answers:
    """One pass over the true response: greedy generation gives it where every token of it is the most likely one."""
    states_BTD, _ = model.states(batch.inputs)
    at_Q = asker.response_Q
    logits_BQ2V = model.student.logits(states_BTD[:, torch.stack([at_Q - 1, at_Q], 1)])
    logits_BQ2V[..., model.block.new_ids] = -torch.inf  # as generation suppresses them
    said_BQ2 = logits_BQ2V.argmax(-1)
    right_BQ2 = said_BQ2 == batch.labels_BT[:, torch.stack([at_Q, at_Q + 1], 1)]
    return Answers(right_BQ2.all(-1), said_BQ2[..., 0], states_BTD[:, at_Q - 1])


def batches(asker: Asker, clips: int | None = None) -> Iterator[Batch]:
    count = min(len(asker.clips), clips or len(asker.clips))
    for start in range(0, count, BATCH):
        yield asker.batch(range(start, min(start + BATCH, count)))


def accuracy(model: CoatModel, asker: Asker) -> dict[str, str]:
    """By question, a 1 or 0 for each clip: right or wrong."""
    right_NQ = torch.cat([answers(model, asker, batch).right_BQ for batch in batches(asker)])
    return {q: "".join(str(int(r)) for r in right_NQ[:, n]) for n, q in enumerate(asker.questions)}


def majority(truths: Sequence[Mapping[str, Any]], question: str) -> float:
    """Accuracy of always giving the most common answer of these clips."""
    said = [truth[question] for truth in truths]
    return max(said.count(answer) for answer in ASKABLE[question].answers) / len(said)


def least_losses(model: CoatModel, questions: Iterable[str]) -> dict[str, float]:
    """By question, the mean cross-entropy of its answers where the last states are the best there are.

    What a frozen norm and output head leave possible: much of it says that these words cannot be told apart.
    """
    tokenizer, norm = model.student.tokenizer, cast(nn.Module, model.student.language_model.norm)
    found: dict[str, float] = {}
    for question in questions:
        ids = [tokenizer(answer, add_special_tokens=False)["input_ids"][0] for answer in ASKABLE[question].answers]
        ids_N, random = torch.tensor(ids), torch.Generator().manual_seed(0)
        states_ND = torch.randn(len(ids), model.student.hidden_size, generator=random).requires_grad_()
        optimizer, loss = torch.optim.Adam([states_ND], lr=0.05), torch.zeros(())
        for _ in range(400):
            loss = F.cross_entropy(model.student.logits(norm(states_ND)), ids_N)
            optimizer.zero_grad()
            loss.backward(inputs=[states_ND])
            optimizer.step()
        found[question] = round(float(loss.detach()), 4)
    return found


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


def causal(model: CoatModel, asker: Asker, clips: int) -> dict[str, dict[str, dict[str, float]]]:
    """By what is replaced (block or audio, and by what): accuracy, and more, by question.

    `accuracy`; `changed`: the share of answers that are others now; `shift`: how far states behind the answers move,
    as a share of how far they are from clip to clip; `donor`: of the clips whose donor has another
    truth (other clip alone), the share that now give the donor's.
    """
    parts: dict[str, dict[str, list[Tensor]]] = {}
    for batch in batches(asker, clips):
        before, kept = answers(model, asker, batch), layer_inputs(model, batch)
        truth_BQ = batch.labels_BT[:, asker.response_Q]
        add(parts, "untouched", accuracy=before.right_BQ)
        for place, instead, at_BK in interventions(model, batch):
            index_BKD = at_BK[..., None].expand(-1, -1, kept[0].shape[-1])
            states_LBKD = [INSTEAD[instead](states_BTD.gather(1, index_BKD)) for states_BTD in kept]
            with replaced(model, at_BK, states_LBKD):
                after = answers(model, asker, batch)
            name = f"{place}: {instead}"
            shift_BQ = (after.states_BQD - before.states_BQD).norm(dim=-1)
            usual_BQ = (before.states_BQD.roll(1, 0) - before.states_BQD).norm(dim=-1)
            add(parts, name, accuracy=after.right_BQ, changed=after.said_BQ != before.said_BQ)
            add(parts, name, shift=shift_BQ / usual_BQ.mean(0).clamp(min=1e-9))
            if instead == "other clip":
                donor_BQ = truth_BQ.roll(1, 0)
                follows_BQ = (after.said_BQ == donor_BQ).float()
                add(parts, name, donor=torch.where(donor_BQ != truth_BQ, follows_BQ, torch.nan))
    return {name: {what: means(asker, part) for what, part in found.items()} for name, found in parts.items()}


def add(parts: dict[str, dict[str, list[Tensor]]], name: str, **found_BQ: Tensor) -> None:
    for what, values_BQ in found_BQ.items():
        parts.setdefault(name, {}).setdefault(what, []).append(values_BQ.float())


def means(asker: Asker, part: Sequence[Tensor]) -> dict[str, float]:
    """Over clips, by question; NaN counts nothing."""
    return {q: round(float(m), 4) for q, m in zip(asker.questions, torch.cat(list(part)).nanmean(0), strict=True)}


def interventions(model: CoatModel, batch: Batch) -> Iterator[tuple[str, str, Tensor]]:
    if model.block.ids_K:
        for instead in INSTEAD:
            yield "block", instead, block_at(model, batch)
    yield "audio", "other clip", audio_at(model, batch)
