"""How much memory a run takes, without weights: on shapes alone.

Weights, gradients and optimizer are counted from the true model on the meta device. Activations are counted, not
estimated by a formula: the student's own language model and the heads run on fake tensors (torch's FakeTensorMode:
shapes, types and no numbers), and what autograd keeps for the way back is summed. Attention is taken for a fused
kernel, which keeps its inputs, its output and a number a row. A frozen audio tower keeps nothing; where it is trained,
as many of Whisper's layers as it has stand for it.

B batch, T positions of a sequence, R response tokens, K think positions, N frames, D dim.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from coat.manifests import ExpertInfo
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.losses import DistillLoss
from coat.trainer.model.parameters import model_part
from coat.trainer.planning.online_experts import FIVE
from coat.trainer.students.base import Student

SPARE = 0.1  # of a GPU: CUDA's context, workspaces, and what the allocator loses to fragments
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Shape:
    """One forward pass."""

    batch: int
    seconds: float  # of audio, each
    tokens: int  # of text, each: prompt and response
    response: int  # of these, the response's


@dataclass(frozen=True)
class Part:
    """What is trained or not, by name: parameters, and bytes."""

    name: str
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Footprint:
    """Bytes, of one rank without sharding."""

    parts: tuple[Part, ...]
    positions: int  # T
    think_rows: int
    weights: int
    gradients: int
    optimizer: int  # AdamW's two moments; with a moving average, that too
    activations: dict[str, int]  # kept for the way back: by part, without gradient checkpointing
    layer: int  # of the language model's, one layer's
    checkpointed: int  # all of them, with it: the layers' inputs, and one layer's at a time
    working: int  # beside them, at most: the largest gradient, or copy, that lives for a moment
    online_weights: int  # of the five experts
    online_activations: int  # of the largest of them: they take turns

    @property
    def parameters(self) -> int:
        return sum(p.parameters for p in self.parts)

    @property
    def trainable(self) -> int:
        return sum(p.trainable for p in self.parts)

    def total(self, checkpointing: bool, online: bool = False) -> int:
        kept = self.checkpointed if checkpointing else sum(self.activations.values())
        beside = self.online_weights + self.online_activations if online else 0
        return self.weights + self.gradients + self.optimizer + kept + self.working + beside

    def fits(self, gpu_bytes: float, checkpointing: bool, online: bool = False) -> bool:
        return self.total(checkpointing, online) <= (1 - SPARE) * gpu_bytes

    def to_dict(self) -> dict[str, Any]:
        totals = {
            name: {"without_experts": self.total(on), "with_online_experts": self.total(on, True)}
            for name, on in (("no_checkpointing", False), ("gradient_checkpointing", True))
        }
        return {**asdict(self), "parameters": self.parameters, "trainable": self.trainable, "total": totals}


def footprint(model: CoatModel, config: TrainConfig, experts: Mapping[str, ExpertInfo], shape: Shape) -> Footprint:
    """Of a model on the meta device, which it is not after: its weights become fake ones."""
    student, trained = model.student, list(model.trainable().values())
    weights = sum(t.numel() * t.element_size() for t in storages(model))
    gradients = sum(p.numel() * p.element_size() for p in trained)
    audio = student.audio_positions(round(shape.seconds * student.sample_rate))
    heard = audio if config.thinking.states == "audio" else model.block.length(shape.seconds)  # by heads
    positions = shape.tokens + audio + model.block.size(shape.seconds)
    lowered = config.run.precision != "no"
    kept = Kept(model, lowered)
    with kept.faked():
        text, layer, instead = language_model(kept, shape, positions)
        parts = {"language model": text, "cross-entropy": cross_entropy(kept, shape)}
        parts["heads and their losses"] = sum(
            head(kept, name, expert, shape, heard, student.hidden_size) for name, expert in experts.items()
        )
        less = instead - text  # by gradient checkpointing
        if config.lora.full:
            parts["audio tower"], inputs = tower(kept, shape)
            less += inputs - parts["audio tower"]
    itemsize = 2 if lowered else next(student.model.parameters()).element_size()
    return Footprint(
        parts=tuple(parts_of(model)),
        positions=positions,
        think_rows=len(model.block.new_ids),
        weights=weights,
        gradients=gradients,
        optimizer=gradients * (3 if config.optim.ema else 2),
        activations=parts,
        layer=layer,
        checkpointed=sum(parts.values()) + less + layer,
        working=working(model, shape),
        online_weights=sum(e.weight_bytes(itemsize) for e in FIVE),
        online_activations=max(e.activation_bytes(shape.batch, shape.seconds, itemsize) for e in FIVE),
    )


def storages(model: nn.Module) -> list[Tensor]:
    """Every weight and buffer once, tied ones too."""
    return list({id(t): t for t in (*model.parameters(), *model.buffers())}.values())


def parts_of(model: CoatModel) -> Iterator[Part]:
    """In the order of the table: what the student has, then what is new."""
    names = {"lora": "LoRA", "rows": "think rows"}
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        group = model_part(name)
        if group == "student":
            tower = any(part in name for part in ("audio_tower", "projector"))
            group = "audio tower" if tower else "vision tower" if "visual" in name else "language model"
        found.setdefault("heads" if group.startswith("heads/") else names.get(group, group), []).append(parameter)
    for name, parameters in found.items():
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        yield Part(name, sum(p.numel() for p in parameters), trained)


def working(model: CoatModel, shape: Shape) -> int:
    """Of what lives for a moment, the largest: logits' gradient beside their softmax, or the gradient of embeddings.

    peft trains rows of an embedding as a changed copy of all of it, whose gradient is as large once more.
    """
    rows = cast(nn.Embedding, model.student.model.get_input_embeddings()).weight
    embeddings = 2 * rows.numel() * rows.element_size() if model.block.new_ids else 0
    return max(embeddings, 2 * shape.batch * shape.response * rows.shape[0] * FLOAT)


class Kept:
    """Counts what autograd keeps of a model's parts, on fake tensors."""

    def __init__(self, model: CoatModel, lowered: bool) -> None:
        self.model, self.lowered = model, lowered
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)

    @contextmanager
    def faked(self) -> Iterator[None]:
        with self.mode, FusedAttention():
            self.model.to_empty(device="cpu")  # a fake one: nothing is allocated
            self.model.train()
            yield

    def bytes(self, forward: Callable[[], Any], autocast: bool = True) -> int:
        """That one forward keeps, its inputs and intermediate results, without the weights."""
        lower = torch.autocast("cpu", torch.bfloat16) if autocast and self.lowered else nullcontext()
        with lower:
            return saved_bytes(forward, storages(self.model))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.student.model.parameters()).dtype


def saved_bytes(forward: Callable[[], Any], but: list[Tensor]) -> int:
    """Bytes of the storages that autograd keeps between a forward and its backward, each once, `but` weights."""
    known = {tensor.untyped_storage()._cdata for tensor in but}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(found.values())
    del result  # held until now: a storage that is freed may lend its address to another
    return total


class Fused(torch.autograd.Function):
    """The shapes of a fused attention: what it keeps is queries, keys, values, mask, output and a number a row.

    torch makes a mask of yes and no into one that is added, at each call.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:  # type: ignore[override]
        out = torch.empty_like(query)
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        added = [] if mask is None else [torch.empty_like(mask, dtype=query.dtype)]
        ctx.save_for_backward(query, key, value, out, rows, *added)
        return out


class FusedAttention(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3]
            return Fused.apply(query, key, value, kwargs.get("attn_mask", args[3] if len(args) > 3 else None))
        return func(*args, **kwargs)


def language_model(kept: Kept, shape: Shape, positions: int) -> tuple[int, int, int]:
    """Bytes of all of it, of one of its layers, and with gradient checkpointing of all but the layer at work."""
    student = kept.model.student
    size = (shape.batch, positions, student.hidden_size)
    states_BTD = torch.empty(size, dtype=kept.dtype, requires_grad=True)
    mask_B1TT = torch.ones(shape.batch, 1, positions, positions, dtype=torch.bool)

    def forward() -> Tensor:
        return student.language_model(
            inputs_embeds=states_BTD, attention_mask=mask_B1TT, use_cache=False
        ).last_hidden_state

    layers, sizes = cast(nn.ModuleList, student.language_model.layers), []
    for few in (layers[:0], layers[:1]):  # they are alike: what one adds, each adds
        student.language_model.layers = few
        sizes.append(kept.bytes(forward))
    student.language_model.layers = layers
    layer = sizes[1] - sizes[0]
    inputs = len(layers) * math.prod(size) * kept.dtype.itemsize
    return sizes[0] + len(layers) * layer, layer, sizes[0] + inputs


def cross_entropy(kept: Kept, shape: Shape) -> int:
    """Of the logits at the response's positions."""
    student: Student = kept.model.student
    states_RD = torch.empty(shape.batch * shape.response, student.hidden_size, dtype=kept.dtype, requires_grad=True)
    labels_R = torch.zeros(len(states_RD), dtype=torch.long)
    return kept.bytes(lambda: F.cross_entropy(student.logits(states_RD).float(), labels_R, reduction="sum"))


def head(kept: Kept, name: str, expert: ExpertInfo, shape: Shape, heard: int, dim: int) -> int:
    """Of one expert's head and loss, in float32, where the head reads `heard` positions."""
    frames = max(1, math.ceil(shape.seconds * expert.spec.rate_hz))
    states_BKD = torch.empty(shape.batch, heard, dim, requires_grad=True)
    mask_BK = torch.ones(shape.batch, heard, dtype=torch.bool)
    seconds_B = torch.ones(shape.batch)
    target_BND = torch.ones(shape.batch, frames, expert.spec.dim)
    mask_BN = torch.ones(shape.batch, frames, dtype=torch.bool)
    heads = kept.model.heads
    loss = heads.losses[name]
    assert isinstance(loss, DistillLoss)
    return kept.bytes(
        lambda: loss(heads.predict(name, states_BKD, mask_BK, seconds_B, frames), target_BND, mask_BN), autocast=False
    )


def tower(kept: Kept, shape: Shape) -> tuple[int, int]:
    """Of an audio tower that is trained, and with gradient checkpointing: Whisper's convolutions and layers."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

    config = kept.model.student.model.config.audio_config
    places = config.max_source_positions
    dim, layers = config.hidden_size, config.num_hidden_layers
    window_s = 2 * places * kept.model.student.hop / kept.model.student.sample_rate
    windows = shape.batch * math.ceil(shape.seconds / window_s)
    like = WhisperConfig(
        d_model=dim, encoder_attention_heads=config.num_attention_heads,
        encoder_ffn_dim=getattr(config, "encoder_ffn_dim", None) or config.intermediate_size,
    )  # fmt: skip
    like._attn_implementation = "sdpa"
    layer = WhisperEncoderLayer(like)  # float32, as all that is trained whole
    convolutions = nn.Sequential(
        nn.Conv1d(config.num_mel_bins, dim, 3, padding=1), nn.GELU(), nn.Conv1d(dim, dim, 3, 2, 1), nn.GELU()
    )
    mel = torch.empty(windows, config.num_mel_bins, 2 * places)
    states = torch.empty(windows, places, dim, requires_grad=True)
    lower = torch.autocast("cpu", torch.bfloat16) if kept.lowered else nullcontext()
    with lower:
        one = saved_bytes(lambda: layer(states, None), storages(layer))
        front = saved_bytes(lambda: convolutions(mel), storages(convolutions))
    return layers * one + front, layers * math.prod(states.shape) * FLOAT + front
