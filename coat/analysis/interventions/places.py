"""Where in a row something stands that can be replaced or hidden: the block, the audio, one expert's positions.

B rows of a batch, T positions of a row, P positions of a place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coat.manifests import InputError
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.heads import HeadGroup

BLOCK, AUDIO = "block", "audio"


@dataclass(frozen=True)
class At:
    """Positions of a place in the rows of a batch. A row with fewer than P repeats its last one."""

    positions_BP: Tensor
    counts: tuple[int, ...]  # of each row, without repeats

    def matching(self, donors: "At") -> Tensor:
        """`[B, P]`: for each position, which one of the donor's stands for it; equal lengths match one to one.

        Else by place from the first to the last, so that what begins and ends a block stays where it was.
        """
        index_BP = torch.zeros_like(self.positions_BP)
        for b, (own, theirs) in enumerate(zip(self.counts, donors.counts, strict=True)):
            index_BP[b, :own] = matching(own, theirs).to(index_BP.device)
            index_BP[b, own:] = index_BP[b, own - 1]
        return index_BP


def matching(own: int, theirs: int) -> Tensor:
    """`[own]`: positions of a place that has `theirs`, for those of one that has `own`."""
    if own == theirs or own == 1:
        return torch.arange(own)
    return (torch.arange(own) * (theirs - 1) / (own - 1)).round().long()


def find(model: CoatModel, place: str, ids_BT: Tensor) -> At:
    """Where a place stands in rows that all have it, wherever they are padded."""
    found = [positions_of(model, place, ids) for ids in ids_BT.tolist()]
    longest = max(map(len, found))
    rows = [row + row[-1:] * (longest - len(row)) for row in found]
    return At(torch.tensor(rows, device=ids_BT.device), tuple(map(len, found)))


def positions_of(model: CoatModel, place: str, ids: Sequence[int]) -> list[int]:
    """In one row; empty where it has no such place.

    The block has with it the tokens that begin and end it: they have heard the audio, too. But where it stands before
    the response, its last token begins the answer: with it a donor's whole answer would be put there, not its block.
    """
    if place == AUDIO:
        return model.student.audio_indices(ids)
    if place == BLOCK:
        block = model.block.indices(ids)
        is_cut = model.block.config.placement == "before_response"
        return [i for i in block if ids[i] != model.block.end_id] if is_cut else block
    think = set(model.block.ids_K)
    positions = [i for i, token in enumerate(ids) if token in think]
    if not positions:
        return []
    read_1K = group_of(model, place).positions_read(torch.ones(1, len(positions), dtype=torch.bool))
    return [position for position, is_read in zip(positions, read_1K[0].tolist(), strict=True) if is_read]


def group_of(model: CoatModel, expert: str) -> HeadGroup:
    group = model.heads.groups[model.heads.group_names[expert]]
    assert isinstance(group, HeadGroup)
    return group


def places_of(model: CoatModel, positions: str) -> list[str]:
    """The places that rows of this model have. `positions`: the run's `heads.positions`."""
    own = list(model.heads.specs) if positions == "own" and model.block.config.states != "audio" else []
    return [*([BLOCK, *own] if model.block.ids_K else []), AUDIO]


def check_place(model: CoatModel, place: str, positions: str) -> None:
    """InputError where rows of this run have no such place."""
    if place in places_of(model, positions):
        return
    experts = list(model.heads.specs)
    if not model.block.ids_K and place in (BLOCK, *experts):
        why = "this run has no thinking block (thinking.count is 0)"
    elif place in experts:
        why = (
            f"all heads read the whole block (heads.positions is {positions!r}); with 'own' each has its own positions"
        )
    else:
        why = f"expected {', '.join(places_of(model, positions))}"
    raise InputError(f"{place}: {why}")
