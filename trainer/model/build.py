"""The model as a run starts it: student, thinking block, LoRA and heads; gradient checkpointing and compilation."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import nn

from coat.manifests import ExpertInfo, InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.heads import CrossBlock, DistillHeads
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.model.trained import choose_trained, keep_in_float32
from coat.trainer.students.attention import check_attention
from coat.trainer.students.meta import meta_student
from coat.trainer.students.registry import dtype_of, load_student


def build_model(
    config: TrainConfig, experts: Mapping[str, ExpertInfo], longest_s: float | None = None, empty: bool = False
) -> CoatModel:
    """The student with block, LoRA (unless `lora.full`) and heads, as a run starts: random by `run.seed`.

    `longest_s`: seconds of the longest audio that the block needs positions for, see `ThinkingBlock.add_to`. `empty`:
    without weights, for a rank that another one sends them to.
    """
    check_attention(config.student.attention, dtype_of(config.student.dtype))
    chosen = config.student
    if empty:
        student = meta_student(chosen.path, chosen.dtype, chosen.attention)
    else:
        student = load_student(chosen.path, chosen.dtype, chosen.attention, chosen.quantize)
    block = ThinkingBlock.add_to(student, config.thinking, longest_s)
    layers = len(cast(nn.ModuleList, student.language_model.layers))
    if config.thinking.layer is not None and not -layers <= config.thinking.layer < layers:
        raise InputError(f"thinking.layer {config.thinking.layer}: the student has {layers} layers")
    torch.manual_seed(config.run.seed)
    with torch.device("meta") if empty else nullcontext():
        choose_trained(student, block, config)
        keep_in_float32(student.model)
        heads = heads_of(config, student.hidden_size, experts)
    if config.run.gradient_checkpointing:
        checkpoint_gradients(student.model)
    model = CoatModel(student, block, *heads)
    if config.run.compile is not None:
        compile_blocks(model, config.run.compile)
    return model


def heads_of(
    config: TrainConfig, states_dim: int, experts: Mapping[str, ExpertInfo]
) -> tuple[DistillHeads, DistillHeads | None]:
    """CoatModel's heads and, where the block's states are distilled and the audio's too, its audio_heads."""
    heads = DistillHeads(config.heads, states_dim, experts, config.losses)
    if config.thinking.states != "both":
        return heads, None
    shared = config.heads.model_copy(update={"positions": "all"})  # "own" shares out the block
    return heads, DistillHeads(shared, states_dim, experts, config.losses)


def checkpoint_gradients(model: Any) -> None:
    """Keep a layer's inputs alone for the way back, of layers that lie on it.

    transformers makes the inputs of every part require a gradient, as only reentrant checkpoints need, and keeps those
    of frozen layers: a frozen audio tower would be kept, computed anew and led back through, for nothing.
    """
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.disable_input_require_grads()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False) and not any(p.requires_grad for p in module.parameters()):
            module.gradient_checkpointing = False


def compile_blocks(model: CoatModel, backend: str) -> None:
    """Compile what is called often and costs most: the language model's layers and the blocks of the heads.

    In place, so that names of weights stay. Lengths differ from batch to batch, so shapes are dynamic. Only `forward`
    is compiled: hooks (of `thinking.layer`, of FSDP2) stay outside, where a later one is not missed.
    """
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise InputError(f"run.compile {backend!r}: torch has no such backend; it has {known}")
    blocks = [*cast(nn.ModuleList, model.student.language_model.layers)]
    modules = (module for heads in model.named_heads().values() for module in heads.modules())
    blocks += [module for module in modules if isinstance(module, CrossBlock)]
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend, dynamic=True)
