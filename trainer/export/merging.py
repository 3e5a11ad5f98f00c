"""What is merged into a whole model, and what an adapter must bring beside its own weights."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from coat.trainer.generation.generate import Trained
from coat.trainer.model.thinking import ThinkingBlock, is_tied
from coat.trainer.model.trained import choose_trained, unfrozen
from coat.trainer.students.base import Student
from coat.trainer.students.four_bit import dequantized
from coat.trainer.students.registry import load_student


def merged_model(trained: Trained, whole: ThinkingBlock) -> Any:
    """The student's model with its adapter merged, whose output can't be a think token. The student is changed.

    `whole`: the block with all its tokens.
    """
    student = in_full_precision(trained, whole) if trained.config.student.quantize else trained.student
    if not is_tied(student.model):
        own_output(student.model)  # whatever its config said
    model = student.model if student.peft_model is None else student.peft_model.merge_and_unload()
    never_say(model, whole)
    return model


def in_full_precision(trained: Trained, block: ThinkingBlock) -> Student:
    """The same student with the weights that its 4 bits stand for, in `student.dtype`: adapters merge into these
    without being rounded to 4 bits themselves.
    """
    config = trained.config
    student = load_student(config.student.path, config.student.dtype)
    as_long = block.config.model_copy(update={"rate_hz": None, "count": len(block.ids_K)})
    choose_trained(student, ThinkingBlock.add_to(student, as_long), config)
    weights = dict(trained.student.model.named_parameters())
    modules = dict(trained.student.model.named_modules())
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            owner = modules[name.rpartition(".")[0]]
            is_four_bit = name.endswith(".weight") and getattr(owner.weight, "quant_state", None) is not None
            parameter.copy_(dequantized(owner) if is_four_bit else weights[name])
    return student


def add_whole_modules(student: Student, folder: Path) -> dict[str, Any]:
    """Add what `student.train` names to an adapter, as peft's `modules_to_save`: what adapter_config.json says of it.

    peft takes whole modules: of one that is trained in part, the rest is added as it is.
    """
    names = sorted({name.rpartition(".")[0] for name in unfrozen(student.model)})
    if not names:
        return {}
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in names:
        for key, tensor in student.model.get_submodule(name).state_dict().items():
            tensors[f"base_model.model.{name}.{key}"] = tensor.detach().cpu().contiguous()
    save_file(tensors, file, {"format": "pt"})
    return {"modules_to_save": names}


@torch.no_grad()
def never_say(model: Any, block: ThinkingBlock) -> None:
    """Let no server say a think token, though it may not know `suppress_tokens`: of a token whose output row is the
    mean of the others' the logit is the mean of theirs, and never the largest.

    Where output embeddings are the input's, that row is what the block is read by: they become a matrix of their own.
    """
    if not block.new_ids:
        return
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    if is_tied(model):
        output.weight = nn.Parameter(embeddings.weight.detach().clone(), requires_grad=False)
        own_output(model)
    others = torch.ones(len(output.weight), dtype=torch.bool)
    others[block.new_ids] = False
    output.weight[block.new_ids] = output.weight[others].float().mean(0).to(output.weight.dtype)


def own_output(model: Any) -> None:
    """Its config, and what transformers goes by, say that output embeddings are a matrix of their own."""
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
