"""The causal measure: how much less likely an answer's tokens are when the states of some positions are replaced.

At the input of every layer, so that nothing of this clip can be read there by later positions. Replacing audio takes
away all that comes from it, also what the block made of it; replacing the block takes away only what went through it.

T positions, P positions of a role, N tokens of an answer, D dim of the states.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coat.analysis.layers import decoder_layers, replaced, states_at
from coat.analysis.listening.asked import AUDIO, BLOCK, QUESTION, Asked
from coat.trainer.model.coat_model import CoatModel

REPLACED = (AUDIO, BLOCK, QUESTION)


@dataclass(frozen=True)
class MeanStates:
    """Of the states of a role in other clips: by layer, `[P, D]` where all of them have P positions, else `[1, D]`."""

    clips: int
    by_role: Mapping[str, Mapping[int, Tensor]] = field(default_factory=dict)

    def of(self, role: str, layer: int, count: int) -> Tensor:
        """`[count, D]`."""
        mean_PD = self.by_role[role][layer]
        return mean_PD if len(mean_PD) == count else mean_PD.mean(0, keepdim=True).expand(count, -1)


@torch.inference_mode()
def token_log_probabilities(model: CoatModel, asked: Asked, answer: Sequence[int]) -> Tensor:
    """`[N]`, in nats, of each token of the answer after those before it."""
    states_1TD, _ = model.states(asked.inputs(model.student.model.device, answer))
    before = slice(len(asked.ids) - 1, len(asked.ids) + len(answer) - 1)
    logits_NV = model.student.logits(states_1TD[0, before]).float()
    if model.block.new_ids:  # never said: see Trained.generate
        logits_NV[:, model.block.new_ids] = -torch.inf
    return logits_NV.log_softmax(-1).gather(1, torch.tensor(answer, device=logits_NV.device)[:, None])[:, 0].cpu()


@torch.inference_mode()
def effects(
    model: CoatModel, asked: Asked, answer: Sequence[int], mean: MeanStates | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities of the answer's tokens, `[N]`, and by role how much they fall when its states are replaced.

    By the mean over other clips, or (None) by zero. Roles without positions are left out.
    """
    own_N = token_log_probabilities(model, asked, answer)
    layers, device = range(len(decoder_layers(model.student))), model.student.model.device
    falls: dict[str, Tensor] = {}
    for role in REPLACED:
        positions = asked.replaceable(role)
        if not positions:
            continue
        zeros_PD = torch.zeros(len(positions), model.student.hidden_size, device=device)
        states = {n: (mean.of(role, n, len(positions)) if mean else zeros_PD)[None] for n in layers}
        with replaced(model.student, torch.tensor([positions], device=device), states):
            falls[role] = own_N - token_log_probabilities(model, asked, answer)
    return own_N, falls


def mean_states(model: CoatModel, others: Iterable[Asked]) -> MeanStates | None:
    """Over clips that are asked the same; memory is that of one clip, however many they are. None: there are none."""
    layers, device = range(len(decoder_layers(model.student))), model.student.model.device
    sums: dict[str, dict[int, Tensor]] = {}
    counts: dict[str, int] = {}
    clips = 0
    for asked in others:
        clips += 1
        for role in REPLACED:
            positions = asked.replaceable(role)
            if not positions:
                continue
            at_1P = torch.tensor([positions], device=device)
            own = {n: s[0].float() for n, s in states_at(model, asked.inputs(device), at_1P, layers).items()}
            so_far, n = sums.setdefault(role, {}), counts.get(role, 0)
            for layer, states_PD in own.items():
                mean_PD = so_far.get(layer)
                if mean_PD is None:
                    so_far[layer] = states_PD
                    continue
                if len(mean_PD) != len(states_PD):  # their positions do not correspond
                    mean_PD, states_PD = mean_PD.mean(0, keepdim=True), states_PD.mean(0, keepdim=True)
                so_far[layer] = mean_PD + (states_PD - mean_PD) / (n + 1)
            counts[role] = n + 1
    return MeanStates(clips, sums) if clips else None
