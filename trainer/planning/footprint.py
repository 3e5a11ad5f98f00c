"""How much memory a run takes, without weights: on shapes alone.

Weights, gradients and optimizer are counted from the true model on the meta device, activations by running it on fake
tensors (activations.py): no formula that would be wrong for the next student.

T positions of a sequence.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from torch import Tensor, nn

from coat.manifests import ExpertInfo
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.parameters import model_part
from coat.trainer.planning.activations import (
    FLOAT32_BYTES,
    ActivationCounter,
    Shape,
    cross_entropy_bytes,
    head_bytes,
    language_model_bytes,
    storages,
    tower_bytes,
    trained_tower,
)
from coat.trainer.planning.online_experts import ONLINE_EXPERTS
from coat.trainer.students.four_bit import is_quantized, quantized_bytes

SPARE = 0.1  # of a GPU: CUDA's context, workspaces, and what the allocator loses to fragments


@dataclass(frozen=True)
class ModelPart:
    """How many parameters a part of the model has, and how many of them are trained."""

    name: str
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Footprint:
    """Bytes, of one rank without sharding."""

    parts: tuple[ModelPart, ...]
    positions: int  # T
    think_rows: int
    weights: int
    gradients: int
    optimizer: int  # AdamW's two moments; with a moving average, that too
    activations: dict[str, int]  # kept for the way back: by part, without gradient checkpointing
    layer: int  # of the language model's, one layer's
    checkpointed: int  # all of them, with it: the layers' inputs, and one layer's at a time
    working: int  # beside them, at most: the largest gradient that lives for a moment
    online_weights: int  # of the five experts
    online_activations: int  # of the largest of them: they take turns

    @property
    def parameters(self) -> int:
        return sum(p.parameters for p in self.parts)

    @property
    def trainable(self) -> int:
        return sum(p.trainable for p in self.parts)

    def total(self, checkpointing: bool, online: bool = False) -> int:
        activations = self.checkpointed if checkpointing else sum(self.activations.values())
        experts = self.online_weights + self.online_activations if online else 0
        return self.weights + self.gradients + self.optimizer + activations + self.working + experts

    def fits(self, gpu_bytes: float, checkpointing: bool, online: bool = False) -> bool:
        return self.total(checkpointing, online) <= (1 - SPARE) * gpu_bytes

    def to_dict(self) -> dict[str, Any]:
        totals = {
            name: {"without_experts": self.total(on), "with_online_experts": self.total(on, True)}
            for name, on in (("no_checkpointing", False), ("gradient_checkpointing", True))
        }
        return {**asdict(self), "parameters": self.parameters, "trainable": self.trainable, "total": totals}


def footprint(model: CoatModel, config: TrainConfig, experts: Mapping[str, ExpertInfo], shape: Shape) -> Footprint:
    """Of a model on the meta device; its weights become fake ones."""
    student, trained = model.student, list(model.trainable().values())
    weights = sum(t.numel() * t.element_size() for t in storages(model)) - saved_by_four_bits(model, config)
    gradients = sum(p.numel() * p.element_size() for p in trained)
    audio = student.audio_positions(round(shape.seconds * student.sample_rate))
    read = {"think": model.block.think_positions(shape.seconds), "audio": audio}  # by heads
    places = [*read] if config.thinking.states == "both" else [config.thinking.states]
    positions = shape.tokens + audio + model.block.inserted_positions(shape.seconds)
    autocasts = config.run.precision != "no"
    counter = ActivationCounter(model, autocasts)
    with counter.fake_weights():
        text, layer, checkpointed_text = language_model_bytes(counter, shape, positions)
        activations = {"language model": text, "cross-entropy": cross_entropy_bytes(counter, shape)}
        activations["heads and their losses"] = sum(
            head_bytes(counter, name, expert, shape, read[place], student.hidden_size)
            for name, expert in experts.items()
            for place in places
        )
        saved = text - checkpointed_text  # by gradient checkpointing
        if config.lora.full or any(trained_tower(student.model)):
            tower, checkpointed_tower = tower_bytes(counter, shape)
            activations["audio tower"] = tower
            saved += tower - checkpointed_tower
    itemsize = 2 if autocasts else next(student.model.parameters()).element_size()
    return Footprint(
        parts=tuple(parts_of(model)),
        positions=positions,
        think_rows=len(model.block.new_ids),
        weights=weights,
        gradients=gradients,
        optimizer=gradients * (3 if config.optim.ema else 2),
        activations=activations,
        layer=layer,
        checkpointed=sum(activations.values()) - saved + layer,
        working=working_bytes(model, shape),
        online_weights=sum(e.weight_bytes(itemsize) for e in ONLINE_EXPERTS),
        online_activations=max(e.activation_bytes(shape.batch, shape.seconds, itemsize) for e in ONLINE_EXPERTS),
    )


def saved_by_four_bits(model: CoatModel, config: TrainConfig) -> int:
    """Bytes that `student.quantize` takes off the weights."""
    if config.student.quantize is None:
        return 0
    layers = [m for name, m in model.student.model.named_modules() if is_quantized(name, m) and "lora_" not in name]
    frozen = [cast(Tensor, layer.weight) for layer in layers]
    return sum(w.numel() * w.element_size() - quantized_bytes(w.numel()) for w in frozen)


def parts_of(model: CoatModel) -> Iterator[ModelPart]:
    """In the order of the table: what the student has, then what is new."""
    names = {"lora": "LoRA", "rows": "think rows"}
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        group = model_part(name)
        if group == "student":
            tower = any(word in name for word in ("audio_tower", "projector"))
            group = "audio tower" if tower else "vision tower" if "visual" in name else "language model"
        parts.setdefault("heads" if group.startswith("heads/") else names.get(group, group), []).append(parameter)
    for name, parameters in parts.items():
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        yield ModelPart(name, sum(p.numel() for p in parameters), trained)


def working_bytes(model: CoatModel, shape: Shape) -> int:
    """The largest of what lives for a moment: the gradient of the logits beside their softmax."""
    rows = cast(nn.Embedding, model.student.model.get_input_embeddings()).weight
    return 2 * shape.batch * shape.response * rows.shape[0] * FLOAT32_BYTES
