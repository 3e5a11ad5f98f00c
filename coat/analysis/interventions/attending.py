"""What is not attended to: columns of the attention mask, in chosen layers, hidden from all positions behind a place.

B rows, T positions of a row, Q queries of a pass, C columns (keys) that it attends to.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from coat.analysis.interventions.places import AUDIO, BLOCK, positions_of
from coat.analysis.layers import decoder_layers
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.students.base import Student


@dataclass(frozen=True)
class Hidden:
    columns_BT: Tensor  # bool: what is hidden
    from_B: Tensor  # from positions from here on

    def within(self, mask_B1QC: Tensor) -> Tensor:
        """The mask without them. Queries are the last of the columns, as with a cache of what was before."""
        queries, columns = mask_B1QC.shape[-2:]
        at_Q = torch.arange(columns - queries, columns, device=mask_B1QC.device)
        hidden_BC = nn.functional.pad(self.columns_BT, (0, columns - self.columns_BT.shape[1]))
        return mask_B1QC & ~(hidden_BC[:, None] & (at_Q[None, :, None] >= self.from_B[:, None, None]))[:, None]


def hiding(model: CoatModel, place: str, ids_BT: Tensor) -> Hidden:
    """A place, hidden from all behind it. Audio: from all behind the block, so that it is heard through it alone.

    What stands between audio and block has heard the audio, and is hidden with it; but where the block stands before
    the response, this is the question, which stays. Without a block: from all behind the audio.
    """
    columns_BT, starts = torch.zeros_like(ids_BT, dtype=torch.bool), []
    for b, ids in enumerate(ids_BT.tolist()):
        hidden = positions_of(model, place, ids)
        start = hidden[-1] + 1
        if place == AUDIO and (block := positions_of(model, BLOCK, ids)):
            start = ids.index(model.block.end_id)
            if model.block.config.placement == "after_audio":
                hidden = list(range(hidden[0], block[0]))
        columns_BT[b, hidden] = True
        starts.append(start)
    return Hidden(columns_BT, torch.tensor(starts, device=ids_BT.device))


@contextmanager
def hidden(student: Student, what: Hidden, layers: Collection[int]) -> Iterator[None]:
    """Within, `what` is not attended to in these layers. Passes must have a 4-D mask of their own: see packing.py."""

    def hook(_module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "attention_mask": what.within(kwargs["attention_mask"])}

    every: list[Callable[[], None]] = []
    for number, layer in enumerate(decoder_layers(student)):
        if number in layers:
            every.append(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
    try:
        yield
    finally:
        for remove in every:
            remove()
