"""Hidden states of a student's language model, layer by layer: looked at, and replaced.

L layers, B batch, T positions of a row, P positions that are looked at, D dim of the states. Layer 0's input is what
the embeddings (and the audio tower) give; "state L" is what the last layer gives, behind the final norm.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from coat.trainer.model.coat_model import CoatModel
from coat.trainer.students.base import Student

Change = Callable[[int, Tensor], Tensor | None]


def decoder_layers(student: Student) -> nn.ModuleList:
    return cast(nn.ModuleList, student.language_model.layers)


@contextmanager
def hooked(student: Student, change: Change) -> Iterator[None]:
    """`change` is given each decoder layer's number and input `[B, T, D]`, and may give another input."""

    def hook_of(layer: int) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                new = change(layer, args[0])
                return None if new is None else ((new, *args[1:]), kwargs)
            new = change(layer, kwargs["hidden_states"])
            return None if new is None else (args, {**kwargs, "hidden_states": new})

        return hook

    handles = [
        layer.register_forward_pre_hook(hook_of(number), with_kwargs=True)
        for number, layer in enumerate(decoder_layers(student))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def states_at(
    model: CoatModel, inputs: Mapping[str, Tensor], positions_BP: Tensor, layers: Sequence[int]
) -> dict[int, Tensor]:
    """By layer, states `[B, P, D]` at some positions: the input of layer l, and for L the last states.

    One pass; nothing is kept but what is asked for, so memory is B * P * D a layer. ValueError: no such layer.
    """
    count = len(decoder_layers(model.student))
    if wrong := [layer for layer in layers if not 0 <= layer <= count]:
        raise ValueError(f"layer {wrong[0]}: this student has layers 0 to {count}")
    kept: dict[int, Tensor] = {}

    def look(layer: int, states_BTD: Tensor) -> None:
        if layer in layers:
            kept[layer] = gathered(states_BTD, positions_BP)

    with hooked(model.student, look):
        last_BTD, _ = model.states(inputs)
    if count in layers:
        kept[count] = gathered(last_BTD, positions_BP)
    return kept


@contextmanager
def replaced(student: Student, positions_BP: Tensor, states: Mapping[int, Tensor]) -> Iterator[None]:
    """Within, the input of each layer that `states` names is `states[layer]`, `[B, P, D]`, at these positions.

    Passes that are shorter are left alone: those of single new tokens, which find what was replaced in the cache.
    """
    last = int(positions_BP.max())

    def change(layer: int, states_BTD: Tensor) -> Tensor | None:
        if layer not in states or states_BTD.shape[1] <= last:
            return None
        index_BPD = positions_BP[..., None].expand(-1, -1, states_BTD.shape[-1])
        return states_BTD.scatter(1, index_BPD, states[layer].to(states_BTD.dtype))

    with hooked(student, change):
        yield


def gathered(states_BTD: Tensor, positions_BP: Tensor) -> Tensor:
    """`[B, P, D]`: the states at some positions of each row, as a tensor of their own."""
    return states_BTD.gather(1, positions_BP[..., None].expand(-1, -1, states_BTD.shape[-1]))
