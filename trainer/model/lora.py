"""LoRA: adapters in the student's language model, and the rows of the think tokens."""

import re
from typing import cast

from torch import nn

from coat.manifests import InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student


def add_lora(student: Student, block: ThinkingBlock, config: TrainConfig) -> None:
    """Put adapters into the language model, and train the new embedding rows alone."""
    from peft import LoraConfig, get_peft_model

    from coat.trainer.model.peft_layers import lighten

    targets = check_lora(student)
    names = [name for name, module in student.model.named_modules() if module is student.model.get_input_embeddings()]
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=config.lora.dropout,
        target_modules=student.lora_targets,
        # Of a mixture of experts, peft keeps the targets' last names alone, which the audio tower has, too.
        exclude_modules=r"(?!.*language_model\.).*",
        trainable_token_indices={names[0]: block.new_ids} if block.new_ids else None,
    )
    student.peft_model = get_peft_model(student.model, lora)
    lighten(student.model)
    adapted = [name for name, module in student.model.named_modules() if hasattr(module, "lora_A")]
    assert adapted == targets, set(adapted) ^ set(targets)
    for name, parameter in student.model.named_parameters():
        assert not parameter.requires_grad or "language_model" in name, name


def check_lora(student: Student) -> list[str]:
    """The modules that LoRA adapts.

    InputError where it would miss the student, or one of its layers: it would be left as it is, silently.
    """
    own = set(cast(nn.ModuleList, student.language_model.layers))
    hit = [name for name, _ in student.model.named_modules() if re.fullmatch(student.lora_targets, name)]
    layers = [name for name, module in student.model.named_modules() if module in own]
    missed = [layer for layer in layers if not any(name.startswith(f"{layer}.") for name in hit)]
    if missed or not layers:
        raise InputError(
            f"{student.source}: LoRA has nothing to adapt in {len(missed)} of {len(layers)} layers "
            f"({', '.join(missed[:2])}): no module's name fits {student.lora_targets!r}, the lora_targets of "
            f"{type(student).__name__}"
        )
    return hit
