"""Prompts with all their possible answers as one row each, so that one pass gives the probability of every answer.

A row is the prompt with its block, and then the answers one behind the other. A 4-D mask hides them from each other and
positions begin anew behind the prompt, so that each is computed as if it stood there alone. transformers passes such a
mask on as it is, for all four students.

B rows, T positions of a row, R tokens of answers in all rows, A answers in all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coat.trainer.data.collator import pad_ids
from coat.trainer.students.base import Student

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Prompt:
    """Prompt with audio and block, and the ids of each answer with the token that ends it."""

    ids: list[int]
    features: dict[str, Tensor]
    answers: tuple[tuple[int, ...], ...] = ()

    @property
    def positions(self) -> int:
        return len(self.ids) + sum(map(len, self.answers))


@dataclass(frozen=True)
class Asked:
    """Tokens whose probability is read, answer by answer."""

    before_R: Tensor  # positions, of all B * T, that say them
    token_R: Tensor
    answer_R: Tensor  # which of the A answers a token is of

    def to(self, device: torch.device) -> "Asked":
        return Asked(self.before_R.to(device), self.token_R.to(device), self.answer_R.to(device))


def pack(student: Student, prompts: Sequence[Prompt]) -> tuple[Inputs, Asked]:
    """Padded on the right; on the student's device."""
    device = student.model.device
    longest = max(prompt.positions for prompt in prompts)
    mask_BTT = torch.ones(longest, longest, dtype=torch.bool).tril().repeat(len(prompts), 1, 1)
    positions_BT = torch.zeros(len(prompts), longest, dtype=torch.long)
    rows, before, tokens, answers = [], [], [], []
    for b, prompt in enumerate(prompts):
        ids, shared = list(prompt.ids), len(prompt.ids)
        positions_BT[b, :shared] = torch.arange(shared)
        for answer in prompt.answers:
            start, stop = len(ids), len(ids) + len(answer)
            mask_BTT[b, start:, shared:start] = False
            positions_BT[b, start:stop] = torch.arange(shared, shared + len(answer))
            before += [b * longest + at for at in (shared - 1, *range(start, stop - 1))]
            tokens += answer
            answers += [answers[-1] + 1 if answers else 0] * len(answer)
            ids += answer
        rows.append(ids)
    inputs = {
        "input_ids": pad_ids(rows, student.tokenizer.pad_token_id),
        "attention_mask": mask_BTT[:, None],
        "position_ids": positions_BT,
        **student.stack_features([prompt.features for prompt in prompts]),
    }
    asked = Asked(*(torch.tensor(t, dtype=torch.long) for t in (before, tokens, answers)))
    return {name: t.to(device) for name, t in inputs.items()}, asked.to(device)


def pad_left(student: Student, prompts: Sequence[Prompt]) -> Inputs:
    """Prompts alone, as generation has them. What is padded sees itself, so that no attention is over nothing."""
    longest, device = max(len(prompt.ids) for prompt in prompts), student.model.device
    pads_B = torch.tensor([longest - len(prompt.ids) for prompt in prompts])
    at_T = torch.arange(longest)
    is_text_BT = at_T >= pads_B[:, None]
    mask_BTT = torch.ones(longest, longest, dtype=torch.bool).tril() & is_text_BT[:, None]
    pad_id = student.tokenizer.pad_token_id
    inputs = {
        "input_ids": torch.tensor([[pad_id] * (longest - len(p.ids)) + p.ids for p in prompts]),
        "attention_mask": (mask_BTT | torch.eye(longest, dtype=torch.bool))[:, None],
        "position_ids": (at_T - pads_B[:, None]).clamp(min=0),
        **student.stack_features([prompt.features for prompt in prompts]),
    }
    return {name: t.to(device) for name, t in inputs.items()}
