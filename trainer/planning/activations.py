"""Activations of a forward pass: what autograd keeps for the way back, counted on shapes alone.

The student's own language model and the heads run on fake tensors (torch's FakeTensorMode: shapes, types and no
numbers), and what autograd keeps is summed. Attention is taken for a fused kernel, which keeps its inputs, its output
and a number a row. A frozen audio tower keeps nothing; where it is trained, as many of Whisper's layers as it has stand
for it.

B batch, T positions of a sequence, R response tokens, K think positions, N frames, D dim.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from coat.manifests import ExpertInfo
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.losses import DistillLoss
from coat.trainer.students.base import Student

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Shape:
    """One forward pass."""

    batch: int
    seconds: float  # of audio, each
    tokens: int  # of text, each: prompt and response
    response: int  # of these, the response's


def storages(model: nn.Module) -> list[Tensor]:
    """Every weight and buffer once, tied ones too."""
    return list({id(t): t for t in (*model.parameters(), *model.buffers())}.values())


class ActivationCounter:
    """Counts what autograd keeps of a model's parts, on fake tensors; `autocasts`: the student computes in bf16."""

    def __init__(self, model: CoatModel, autocasts: bool) -> None:
        self.model, self.autocasts = model, autocasts
        self.fake_mode = FakeTensorMode(allow_non_fake_inputs=True)

    @contextmanager
    def fake_weights(self) -> Iterator[None]:
        """The model's weights become fake ones, and stay so."""
        with self.fake_mode, FusedAttention():
            self.model.to_empty(device="cpu")  # fake: nothing is allocated
            self.model.train()
            yield

    def count(self, forward: Callable[[], Any]) -> int:
        """Bytes that one forward keeps: its inputs and intermediate results, without the weights."""
        with self.autocast():
            return saved_bytes(forward, storages(self.model))

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if self.autocasts else nullcontext()

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.student.model.parameters()).dtype


def saved_bytes(forward: Callable[[], Any], weights: list[Tensor]) -> int:
    """Bytes of the storages that autograd keeps between a forward and its backward, each once, without `weights`."""
    weight_storages = {tensor.untyped_storage()._cdata for tensor in weights}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weight_storages:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(saved.values())
    del result  # held until now: a storage that is freed may lend its address to another
    return total


class FusedAttentionFunction(torch.autograd.Function):
    """The shapes of a fused attention: what it keeps is queries, keys, values, mask, output and a number a row.

    torch converts a boolean mask into one that is added, at each call.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
        out = torch.empty_like(query)
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        added = [] if mask is None else [torch.empty_like(mask, dtype=query.dtype)]
        ctx.save_for_backward(query, key, value, out, rows, *added)
        return out


class FusedAttention(TorchFunctionMode):
    """Within, attention is FusedAttentionFunction."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3]
            return FusedAttentionFunction.apply(
                query, key, value, kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
            )
        return func(*args, **kwargs)


def language_model_bytes(counter: ActivationCounter, shape: Shape, positions: int) -> tuple[int, int, int]:
    """All of it; one of its layers; and with gradient checkpointing, all but the layer that is computed."""
    student = counter.model.student
    size = (shape.batch, positions, student.hidden_size)
    states_BTD = torch.empty(size, dtype=counter.dtype, requires_grad=True)
    hides_audio = counter.model.block.config.hide_audio > 0
    mask_B1TT = torch.ones(shape.batch, 1, positions, positions, dtype=torch.bool) if hides_audio else None

    def forward() -> Tensor:
        return student.decode(states_BTD, mask_B1TT)

    layers, sizes = cast(nn.ModuleList, student.language_model.layers), []
    for first_layers in (layers[:0], layers[:1]):  # they are alike: what one adds, each adds
        student.language_model.layers = first_layers
        sizes.append(counter.count(forward))
    student.language_model.layers = layers
    layer = sizes[1] - sizes[0]
    inputs = len(layers) * math.prod(size) * counter.dtype.itemsize
    return sizes[0] + len(layers) * layer, layer, sizes[0] + inputs


def cross_entropy_bytes(counter: ActivationCounter, shape: Shape) -> int:
    """The logits at the response's positions."""
    student: Student = counter.model.student
    states_RD = torch.empty(shape.batch * shape.response, student.hidden_size, dtype=counter.dtype, requires_grad=True)
    labels_R = torch.zeros(len(states_RD), dtype=torch.long)
    return counter.count(lambda: F.cross_entropy(student.logits(states_RD).float(), labels_R, reduction="sum"))


def head_bytes(
    counter: ActivationCounter, name: str, expert: ExpertInfo, shape: Shape, positions: int, dim: int
) -> int:
    """One expert's head and its loss, where the head reads `positions`."""
    frames = max(1, math.ceil(shape.seconds * expert.spec.rate_hz))
    states_BKD = torch.empty(shape.batch, positions, dim, requires_grad=True)
    mask_BK = torch.ones(shape.batch, positions, dtype=torch.bool)
    seconds_B = torch.ones(shape.batch)
    target_BND = torch.ones(shape.batch, frames, expert.spec.dim)
    mask_BN = torch.ones(shape.batch, frames, dtype=torch.bool)
    heads = counter.model.heads
    loss = heads.losses[name]
    assert isinstance(loss, DistillLoss)

    def forward() -> Tensor:
        return loss(heads.predict(name, states_BKD, mask_BK, seconds_B, frames), target_BND, mask_BN)

    return counter.count(forward)


def tower_bytes(counter: ActivationCounter, shape: Shape) -> tuple[int, int]:
    """An audio tower that is trained, without and with gradient checkpointing: Whisper's convolutions and layers.

    Below the first layer that is trained nothing is kept.
    """
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

    config = counter.model.student.model.config.audio_config
    positions = config.max_source_positions
    dim, (layers, trains_convolutions) = config.hidden_size, trained_tower(counter.model.student.model)
    window_s = 2 * positions * counter.model.student.hop / counter.model.student.sample_rate
    windows = shape.batch * math.ceil(shape.seconds / window_s)
    whisper_config = WhisperConfig(
        d_model=dim, encoder_attention_heads=config.num_attention_heads,
        encoder_ffn_dim=getattr(config, "encoder_ffn_dim", None) or config.intermediate_size,
    )  # fmt: skip
    whisper_config._attn_implementation = "sdpa"
    layer = WhisperEncoderLayer(whisper_config)  # float32, as all that is trained whole
    convolutions = nn.Sequential(
        nn.Conv1d(config.num_mel_bins, dim, 3, padding=1), nn.GELU(), nn.Conv1d(dim, dim, 3, 2, 1), nn.GELU()
    )
    mel = torch.empty(windows, config.num_mel_bins, 2 * positions)
    states = torch.empty(windows, positions, dim, requires_grad=True)
    with counter.autocast():
        layer_bytes = saved_bytes(lambda: layer(states, None), storages(layer))
        convolution_bytes = saved_bytes(lambda: convolutions(mel), storages(convolutions)) if trains_convolutions else 0
    inputs = layers * math.prod(states.shape) * FLOAT32_BYTES
    return layers * layer_bytes + convolution_bytes, inputs + convolution_bytes


def trained_tower(model: nn.Module) -> tuple[int, bool]:
    """How many of the tower's layers gradients go through, and whether they come to its convolutions."""
    total, first, below = 0, None, False
    for name, parameter in model.named_parameters():
        match = re.search(r"audio_tower\.(?:\w+\.)*?layers\.(\d+)\.", name)
        total = max(total, int(match[1]) + 1) if match else total
        if match and parameter.requires_grad:
            first = int(match[1]) if first is None else min(first, int(match[1]))
        below |= parameter.requires_grad and re.search(r"audio_tower\.(conv|embed)", name) is not None
    return total if below else 0 if first is None else total - first, below
