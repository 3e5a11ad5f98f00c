"""LoRA: adapters in the student's language model, and the rows of the think tokens."""

import re
import warnings
from collections.abc import Iterable, Sequence
from typing import cast

from torch import nn

from coat.manifests import InputError
from coat.trainer.config.sections import LoraConfig
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student

NAMED = 40  # names in a message, at most


def add_lora(student: Student, block: ThinkingBlock, config: TrainConfig) -> None:
    """Put adapters into the language model (or where `lora.targets` says), and train the new embedding rows alone."""
    import peft

    from coat.trainer.model.peft_layers import lighten

    targets, chosen = check_lora(student, config.lora), config.lora
    names = [name for name, module in student.model.named_modules() if module is student.model.get_input_embeddings()]
    layers = layers_name(student)
    in_layers = all(name.startswith(layers) for name in targets)
    adapter = peft.LoraConfig(
        r=chosen.rank,
        lora_alpha=chosen.alpha,  # type: ignore[arg-type]
        lora_dropout=chosen.dropout,
        target_modules=one_pattern(targets, layers) if chosen.targets else student.lora_targets,
        # Of a mixture of experts, peft keeps the targets' last names alone, which the audio tower has, too.
        exclude_modules=r"(?!.*language_model\.).*" if in_layers else None,
        rank_pattern=dict(chosen.ranks),
        alpha_pattern=dict(chosen.alphas),
        use_dora=chosen.dora,
        use_rslora=chosen.rslora,
        trainable_token_indices={names[0]: block.new_ids} if block.new_ids else None,
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers for a property that transformers 5.23 has renamed
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
        student.peft_model = peft.get_peft_model(student.model, adapter)
    lighten(student.model)
    adapted = [name for name, module in student.model.named_modules() if hasattr(module, "lora_A")]
    if wrong := sorted(set(adapted) ^ set(targets)):
        raise InputError(
            f"{student.source}: peft does not adapt what lora.targets names of it, but for {wrong[0]}; name layers of "
            "the language model alone"
        )
    for name, parameter in student.model.named_parameters():
        assert not parameter.requires_grad or not in_layers or "language_model" in name, name


def check_lora(student: Student, config: LoraConfig) -> list[str]:
    """The modules that LoRA adapts, in the model's order.

    InputError where a pattern fits none, or where it would miss the student or one of its layers, without patterns of
    the run's own: it would be left as it is, silently.
    """
    linear = [name for name, module in student.model.named_modules() if isinstance(module, nn.Linear)]
    layers = layers_name(student)
    if config.targets:
        found = {name for pattern in config.targets for name in targets_of(pattern, linear, layers)}
        hit = [name for name in linear if name in found]
    else:
        hit = [name for name in linear if re.fullmatch(student.lora_targets, name)]
        own = [f"{layers}{n}." for n in range(len(cast(nn.ModuleList, student.language_model.layers)))]
        missed = [layer for layer in own if not any(name.startswith(layer) for name in hit)]
        if missed or not own:
            raise InputError(
                f"{student.source}: LoRA has nothing to adapt in {len(missed)} of {len(own)} layers "
                f"({', '.join(layer[:-1] for layer in missed[:2])}): no module's name fits {student.lora_targets!r}, "
                f"the lora_targets of {type(student).__name__}"
            )
    for key, patterns in (("ranks", config.ranks), ("alphas", config.alphas)):
        for pattern in patterns:
            if not any(fits(pattern, name) for name in hit):
                raise InputError(f"lora.{key} {pattern!r}: fits no layer that is adapted; there are {kinds(hit)}")
    return hit


def targets_of(pattern: str, linear: Sequence[str], layers: str) -> list[str]:
    """In the language model's layers or, of what fits nothing there, in all of the student: a bare q_proj would also
    hit the audio tower.
    """
    inside = [name for name in linear if name.startswith(layers)]
    found = [name for name in inside if fits(pattern, name)] or [name for name in linear if fits(pattern, name)]
    if not found:
        raise InputError(f"lora.targets {pattern!r}: fits no linear layer of the student; it has {kinds(linear)}")
    return found


def fits(pattern: str, name: str) -> bool:
    """Whether it fits the name, or its end behind a dot: as peft reads the keys of its `rank_pattern`."""
    return re.fullmatch(rf"(?:.*\.)?(?:{pattern})", name) is not None


def one_pattern(targets: Sequence[str], layers: str) -> str:
    """A regular expression of exactly these modules, as short as their layers allow: it stands in adapter_config.json.

    Each name of a part, with the numbers of the layers that have it.
    """
    numbers: dict[str, list[str]] = {}
    others = [re.escape(name) for name in targets if not name.startswith(layers)]
    for name in targets:
        if name.startswith(layers):
            number, _, part = name.removeprefix(layers).partition(".")
            numbers.setdefault(part, []).append(number)
    parts_of: dict[str, list[str]] = {}
    for part, layer_numbers in numbers.items():
        parts_of.setdefault("|".join(layer_numbers), []).append(re.escape(part))
    inside = [rf"{re.escape(layers)}(?:{which})\.(?:{'|'.join(parts)})" for which, parts in parts_of.items()]
    return "|".join([*inside, *others])


def layers_name(student: Student) -> str:
    """Before the names of what is in the language model's layers: `model.language_model.layers.`."""
    layers = student.language_model.layers
    return next(name for name, module in student.model.named_modules() if module is layers) + "."


def kinds(names: Iterable[str]) -> str:
    """Names with N for their numbers, each once."""
    found = list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.|$)", "N", name) for name in names))
    more = len(found) - NAMED
    return ", ".join(found[:NAMED]) + (f", and {more} more" if more > 0 else "")
