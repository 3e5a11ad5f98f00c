"""What is read off a trained model: answers, and what they depend on.

B clips of a batch, T positions of a row, Q questions, K positions that are replaced, D dim of the states, R tokens that
are read: two of each question.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.scale_model.corpus import ASKABLE
from benchmarks.scale_model.data import Asker
from coat.analysis.interventions.kinds import (
    MEAN,
    OTHER,
    ZERO,
    Intervention,
    States,
    StatesMean,
    of_donors,
    of_mean,
    of_zeros,
)
from coat.analysis.interventions.packing import Asked
from coat.analysis.interventions.places import AUDIO, BLOCK, At, find
from coat.analysis.interventions.reading import read
from coat.analysis.interventions.student import Intervener
from coat.analysis.layers import decoder_layers
from coat.trainer.model.batch import Batch
from coat.trainer.model.coat_model import CoatModel

BATCH = 100  # clips


@dataclass(frozen=True)
class Answers:
    """`right`: response and end are what greedy generation would give. `said`: the token at the response's place."""

    right_BQ: Tensor  # bool
    said_BQ: Tensor
    states_BQD: Tensor  # of which it is said


@torch.inference_mode()
def answers(model: CoatModel, asker: Asker, batch: Batch) -> Answers:
    """One pass over the true response: greedy generation gives it where every token of it is the most likely one."""
    return answers_of(model, asker, batch, model.states(batch.inputs)[0])


def answers_of(model: CoatModel, asker: Asker, batch: Batch, states_BTD: Tensor) -> Answers:
    """Of a pass: each question's answer and the end, read as `coat intervene` reads answers."""
    said_BQ2 = torch.stack([asker.response_Q, asker.response_Q + 1], 1).expand(len(batch), -1, -1)
    rows_B11 = torch.arange(len(batch))[:, None, None] * states_BTD.shape[1]
    tokens_BQ2 = batch.labels_BT.flatten()[rows_B11 + said_BQ2]
    answer_R = torch.arange(tokens_BQ2[..., 0].numel()).repeat_interleave(2)
    found = read(model, states_BTD, Asked((rows_B11 + said_BQ2 - 1).flatten(), tokens_BQ2.flatten(), answer_R))
    found_BQ2 = found.said_R.view(tokens_BQ2.shape)
    states_BQD = found.states_RD.view(*tokens_BQ2.shape, -1)[:, :, 0]
    return Answers((found_BQ2 == tokens_BQ2).all(-1), found_BQ2[..., 0], states_BQD)


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


# Causal tests: hidden states of some positions are replaced at the input of every layer, and the answers looked at, by
# the functions of `coat intervene`. What is put there comes from a pass of its own, without any replacing.


def block_at(model: CoatModel, batch: Batch) -> Tensor:
    """`[B, K + 2]`: the whole block, with the tokens that begin and end it."""
    return find(model, BLOCK, batch.inputs["input_ids"]).positions_BP


def audio_at(model: CoatModel, batch: Batch) -> Tensor:
    return find(model, AUDIO, batch.inputs["input_ids"]).positions_BP


NAMES: Mapping[str, str] = {OTHER: "other clip", MEAN: "batch mean", ZERO: "zero"}  # in results


@torch.inference_mode()
def causal(model: CoatModel, asker: Asker, clips: int) -> dict[str, dict[str, dict[str, float]]]:
    """By what is replaced (block or audio, and by what): accuracy, and more, by question.

    `accuracy`; `changed`: the share of answers that are others now; `shift`: how far states behind the answers move,
    as a share of how far they are from clip to clip; `donor`: of the clips whose donor has another
    truth (other clip alone), the share that now give the donor's.
    """
    parts: dict[str, dict[str, list[Tensor]]] = {}
    done = interventions(model)
    intervener = Intervener(model, done, range(len(decoder_layers(model.student))))
    for batch in batches(asker, clips):
        at = {place: find(model, place, batch.inputs["input_ids"]) for place in intervener.places(*NAMES)}
        states_BTD, kept = intervener.keep(batch.inputs, at)
        before, truth_BQ = answers_of(model, asker, batch, states_BTD), batch.labels_BT[:, asker.response_Q]
        add(parts, "untouched", accuracy=before.right_BQ)
        for one in done:
            with intervener.applied(one, batch.inputs["input_ids"], instead(one.what, kept[one.place], at[one.place])):
                after = answers(model, asker, batch)
            name = f"{one.place}: {NAMES[one.what]}"
            shift_BQ = (after.states_BQD - before.states_BQD).norm(dim=-1)
            usual_BQ = (before.states_BQD.roll(1, 0) - before.states_BQD).norm(dim=-1)
            add(parts, name, accuracy=after.right_BQ, changed=after.said_BQ != before.said_BQ)
            add(parts, name, shift=shift_BQ / usual_BQ.mean(0).clamp(min=1e-9))
            if one.what == OTHER:
                donor_BQ = truth_BQ.roll(1, 0)
                follows_BQ = (after.said_BQ == donor_BQ).float()
                add(parts, name, donor=torch.where(donor_BQ != truth_BQ, follows_BQ, torch.nan))
    return {name: {what: means(asker, part) for what, part in found.items()} for name, found in parts.items()}


def instead(what: str, own: States, at: At) -> States:
    """What is put in the place of states: the last clip's, the batch's mean, or zeros. Clips are equally long."""
    if what == OTHER:
        return of_donors({layer: states_BKD.roll(1, 0) for layer, states_BKD in own.items()}, at.matching(at))
    if what == ZERO:
        return of_zeros(own)
    mean = StatesMean(at.counts[0])
    mean.add(own, at.matching(at))
    return of_mean(mean.mean(), at.matching(at))


def interventions(model: CoatModel) -> list[Intervention]:
    block = [Intervention(BLOCK, what) for what in NAMES] if model.block.ids_K else []
    return [*block, Intervention(AUDIO, OTHER)]


def add(parts: dict[str, dict[str, list[Tensor]]], name: str, **found_BQ: Tensor) -> None:
    for what, values_BQ in found_BQ.items():
        parts.setdefault(name, {}).setdefault(what, []).append(values_BQ.float())


def means(asker: Asker, part: Sequence[Tensor]) -> dict[str, float]:
    """Over clips, by question; NaN counts nothing."""
    return {q: round(float(m), 4) for q, m in zip(asker.questions, torch.cat(list(part)).nanmean(0), strict=True)}
