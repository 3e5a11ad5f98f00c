"""Attention rollout: through which positions attention could have carried something to a position of the last layer.

In each layer a position's state is half its own (the residual) and half what its attention, the mean over heads, gives
it; layers are multiplied (Abnar and Zuidema 2020). It says what *can* flow. It knows neither values nor the MLPs, so it
does not say what was used.

T positions of a sequence, H heads.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from coat.analysis.layers import decoder_layers
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.students.base import Student


class NoAttention(Exception):
    """The student's attention gives no weights; the message says why there is no rollout."""


@torch.inference_mode()
def rollout(model: CoatModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """`[T, T]` of one row without padding, on the host: row t says how much of position t came from each position.

    Rows sum to 1. One layer's weights, `[H, T, T]`, are held at a time. NoAttention: see there.
    """
    reached: list[Tensor] = []

    def take(_module: nn.Module, _args: Any, output: Any) -> None:
        weights_BHTT = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if weights_BHTT is None:
            raise NoAttention("attention of this student gives no weights")
        mixed_TT = (weights_BHTT[0].float().mean(0) + torch.eye(weights_BHTT.shape[-1], device=weights_BHTT.device)) / 2
        mixed_TT = mixed_TT / mixed_TT.sum(-1, keepdim=True)  # bfloat16 sums to 1 but nearly
        reached[:] = [mixed_TT @ reached[0] if reached else mixed_TT]

    layers = decoder_layers(model.student)
    missing = [n for n, layer in enumerate(layers) if not isinstance(getattr(layer, "self_attn", None), nn.Module)]
    if missing:
        raise NoAttention(f"layer {missing[0]} of this student has no attention to look at")
    handles = [layer.self_attn.register_forward_hook(take) for layer in layers]  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue, reportCallIssue]
    try:
        with eager(model.student):
            model.student.hidden_states(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return reached[0].cpu()


@contextmanager
def eager(student: Student) -> Iterator[None]:
    """Within, the language model computes attention step by step: faster ways never have the weights.

    For one pass alone, so that all else is computed as `coat generate` does.
    """
    found: list[Any] = [student.model.config.text_config, student.language_model.config]
    configs = {id(config): config for config in found}.values()
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, was in zip(configs, before, strict=True):
            config._attn_implementation = was
