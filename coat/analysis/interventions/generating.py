"""Greedy answers while states are replaced or hidden: what is done to the prompt stays in the cache.

transformers' own `generate` takes no 4-D mask, and without one a hidden block would move the positions behind it.

B rows, T positions of a prompt, N new tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from coat.analysis.interventions.packing import Inputs
from coat.analysis.interventions.reading import log_probabilities
from coat.trainer.model.coat_model import CoatModel


def generated(model: CoatModel, inputs: Inputs, max_new_tokens: int) -> list[list[int]]:
    """Ids of each row's answer, without the token that ends it. `inputs` are those of packing.pad_left."""
    student = model.student
    stops = torch.tensor(student.chat.stop_ids, device=inputs["input_ids"].device)
    mask_B1QC, position_B1 = inputs["attention_mask"], inputs["position_ids"][:, -1:]
    found = student.model.model(**inputs, use_cache=True)
    said: list[Tensor] = []
    ended_B = torch.zeros(len(position_B1), dtype=torch.bool, device=stops.device)
    while True:
        token_B = log_probabilities(model, found.last_hidden_state[:, -1]).argmax(-1)
        said.append(token_B)
        ended_B |= torch.isin(token_B, stops)
        if len(said) == max_new_tokens or ended_B.all():
            return [upto_end(ids, student.chat.stop_ids) for ids in torch.stack(said, 1).tolist()]
        mask_B1QC, position_B1 = pad(mask_B1QC[:, :, -1:], (0, 1), value=True), position_B1 + 1
        found = student.model.model(
            input_ids=token_B[:, None], attention_mask=mask_B1QC, position_ids=position_B1,
            past_key_values=found.past_key_values, use_cache=True,
        )  # fmt: skip


def upto_end(ids: Sequence[int], stops: Sequence[int]) -> list[int]:
    return list(ids[: next((i for i, token in enumerate(ids) if token in stops), len(ids))])
