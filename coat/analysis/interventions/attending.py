"""What is not attended to: columns of the attention mask, in chosen layers, hidden from all positions behind a place.

B rows, T positions of a row, Q queries of a pass, C columns (keys) that it attends to.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from coat.analysis.interventions.places import AUDIO, positions_of
from coat.analysis.layers import decoder_layers
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.hiding import Hidden, HiddenInRow, audio_hidden, hidden_in
from coat.trainer.students.base import Student


def hiding(model: CoatModel, place: str, ids_BT: Tensor) -> Hidden:
    """A place, hidden from all behind it; but the audio, where there is a block, from all behind the block."""
    rows = [hidden_in_row(model, place, ids) for ids in ids_BT.tolist()]
    return hidden_in(rows, ids_BT.shape[1]).to(ids_BT.device)


def hidden_in_row(model: CoatModel, place: str, ids: Sequence[int]) -> HiddenInRow:
    positions = positions_of(model, place, ids)
    if place == AUDIO and (block := model.block.indices(ids)):
        return audio_hidden(positions, block, model.block.config)
    return HiddenInRow(positions, positions[-1] + 1)


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
