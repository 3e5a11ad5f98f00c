"""The trained student of a run: written into its folder at the end, and loaded from there.

RUN/student/            the student (or its LoRA adapter), with processor and think tokens
RUN/heads.safetensors   the projection heads, which generation does not need
RUN/done.json           written LAST
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from coat.manifests import InputError, RunError, storage
from coat.trainer.data.sample_record import RunData
from coat.trainer.generation.generate import Trained
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.lora import add_lora
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.run_folder import RunFolder
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student


def write_student(folder: RunFolder, model: CoatModel, step: int) -> None:
    """What generation needs, and the heads; then the run is finished."""
    student = model.student
    shutil.rmtree(folder.student, ignore_errors=True)
    if student.peft_model is None:
        student.model.save_pretrained(folder.student)
    else:
        save_adapter(student, folder.student)
    student.processor.save_pretrained(folder.student)
    save_file({k: v.detach().cpu().contiguous() for k, v in model.heads.state_dict().items()}, folder.heads)
    done = {"step": step, "think_ids": model.block.new_ids}
    storage.write_bytes(str(folder.done_file), storage.to_json(done))


def save_adapter(student: Student, folder: Path) -> None:
    """LoRA, and the rows of the think tokens (trainable tokens): whole embeddings would make it large."""
    student.peft_model.save_pretrained(folder, save_embedding_layers=False)


def load_run(run: str | Path, device: str | None = None) -> Trained:
    """The trained student of a finished run, on `device` (default: a GPU where there is one).

    InputError: no run there. RunError: the run is not finished, or its weights do not fit.
    """
    folder = RunFolder(Path(run))
    if not folder.config_file.exists():
        raise InputError(f"{run}: no config.toml; expected what `coat train --out` wrote")
    if not folder.finished:
        raise RunError(f"{run}: this run is not finished; the same `coat train` command goes on with it")
    config, longest_s = folder.config, RunData(folder.path).block_s
    if config.lora.full:
        student = load_student(str(folder.student), config.student.dtype)
        block = ThinkingBlock.add_to(student, config.thinking, longest_s)
    else:
        # Order: add tokens, resize, load the adapter.
        student = load_student(config.student.path, config.student.dtype)
        if folder.base_file.exists():  # runs of before have none
            folder.check_base(config.student.path, student.digest)
        block = ThinkingBlock.add_to(student, config.thinking, longest_s)
        add_lora(student, block, config)
        load_adapter(student, folder.student)
    trained_ids = storage.read_json(str(folder.done_file))["think_ids"]
    block.check_ids(trained_ids, str(run))
    student.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Trained(student, block, config)


def load_adapter(student: Student, folder: Path) -> None:
    """RunError where any weight of the adapter is missing or has no place: it is never applied in part."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = load_file(folder / "adapter_model.safetensors")
    expected = get_peft_model_state_dict(student.peft_model, save_embedding_layers=False)
    if wrong := sorted(set(weights) ^ set(expected)):
        raise RunError(f"{folder}: the adapter does not fit the student: {wrong[0]} and {len(wrong) - 1} more")
    set_peft_model_state_dict(student.peft_model, weights)
