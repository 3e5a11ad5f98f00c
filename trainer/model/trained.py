"""Which of a student's weights are trained: LoRA, all of them, and what `student.train` names beside LoRA."""

import re
from collections.abc import Sequence

import torch
from torch import nn

from coat.manifests import InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.lora import add_lora, kinds
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student

PEFTS_OWN = re.compile(r"\.(base_layer|lora_\w+|token_adapter)\.")  # in names of what peft has wrapped


def choose_trained(student: Student, block: ThinkingBlock, config: TrainConfig) -> None:
    """Freeze and unfreeze the student's weights as the config says, LoRA added: in training, planning and generation.

    InputError where a pattern of the config fits nothing.
    """
    if not config.lora.full:
        add_lora(student, block, config)
        unfreeze(student.model, config.student.train)
        return
    if config.student.dtype != "float32":
        raise InputError(
            f"student.dtype {config.student.dtype} with lora.full: small updates would be rounded away; "
            "use float32 (run.precision computes in bf16 where it can)"
        )
    student.model.requires_grad_(True)
    freeze_constants(student.model)


def unfreeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Train the weights in whose names one of the patterns is found; sinusoids stay as they are."""
    weights = dict(model.named_parameters())
    for pattern in patterns:
        found = [name for name in weights if re.search(pattern, name) and not is_constant(name)]
        if not found:
            there = kinds(name for name in weights if not PEFTS_OWN.search(f".{name}."))
            raise InputError(f"student.train {pattern!r}: found in no weight's name; there are {there}")
        if taken := next((name for name in found if PEFTS_OWN.search(name)), None):
            raise InputError(
                f"student.train {pattern!r}: {taken} is what LoRA adapts, or the think rows stand in; name other "
                "weights, or other lora.targets"
            )
        if packed := next((name for name in found if not weights[name].is_floating_point()), None):
            raise InputError(f"student.train {pattern!r}: {packed} is in 4 bits (student.quantize), and stays frozen")
        for name in found:
            weights[name].requires_grad_(True)


def unfrozen(model: nn.Module) -> dict[str, nn.Parameter]:
    """What `student.train` names beside LoRA, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad and not PEFTS_OWN.search(name)}


@torch.no_grad()
def keep_in_float32(model: nn.Module) -> None:
    """What is trained, whatever the type of the frozen weights is: small updates would be rounded away."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def freeze_constants(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if is_constant(name):
            parameter.requires_grad_(False)


def is_constant(name: str) -> bool:
    """Whisper's sinusoidal positions, as transformers has them; and what nothing ever reaches, so that ranks would wait
    for its gradients: a vision tower, and embeddings that Qwen2.5-Omni's audio tower has and does not use.
    """
    return name.endswith(("embed_positions.weight", "audio_bos_eos_token.weight")) or ".visual." in name
