"""The model as a run starts it: student, thinking block, LoRA and heads; gradient checkpointing and compilation."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from coat.manifests import ExpertInfo, InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.heads import CrossBlock, DistillHeads
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.model.trained import choose_trained, keep_in_float32
from coat.trainer.students.registry import load_student


def build_model(config: TrainConfig, experts: Mapping[str, ExpertInfo]) -> CoatModel:
    """The student with block, LoRA (unless `lora.full`) and heads, as a run starts: random by `run.seed`."""
    student = load_student(config.student.path, config.student.dtype, config.student.quantize)
    block = ThinkingBlock.add_to(student, config.thinking)
    layers = len(cast(nn.ModuleList, student.language_model.layers))
    if config.thinking.layer is not None and not -layers <= config.thinking.layer < layers:
        raise InputError(f"thinking.layer {config.thinking.layer}: the student has {layers} layers")
    torch.manual_seed(config.run.seed)
    choose_trained(student, block, config)
    keep_in_float32(student.model)
    if config.run.gradient_checkpointing:
        checkpoint_gradients(student.model)
    model = CoatModel(student, block, DistillHeads(config.heads, student.hidden_size, experts, config.losses))
    if config.run.compile is not None:
        compile_blocks(model, config.run.compile)
    return model


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
    blocks += [module for module in model.heads.modules() if isinstance(module, CrossBlock)]
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend, dynamic=True)
