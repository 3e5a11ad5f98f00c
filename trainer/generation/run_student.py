"""The trained student of a run: written into its folder at the end, and loaded from there or from any checkpoint.

RUN/student/            the student (or its LoRA adapter, and what student.train names), with processor and think tokens
RUN/heads.safetensors   the projection heads, which generation does not need
RUN/done.json           written LAST
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from coat.manifests import InputError, RunError, storage
from coat.manifests.errors import one_line
from coat.trainer.data.sample_record import RunData
from coat.trainer.generation.generate import Trained
from coat.trainer.model.build import heads_of
from coat.trainer.model.coat_model import STUDENT_PREFIX, CoatModel
from coat.trainer.model.experts import experts_of
from coat.trainer.model.saved_weights import load_shards, load_weights, save_weights
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.model.trained import choose_trained, unfrozen
from coat.trainer.records.checkpoint_files import (
    AVERAGE,
    WEIGHTS_FILE,
    Step,
    chosen_checkpoint,
    is_sharded_checkpoint,
    read_state,
    step_of,
)
from coat.trainer.run_folder import RunFolder
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student

UNFROZEN_FILE = "unfrozen.safetensors"  # beside an adapter


def write_student(
    folder: RunFolder,
    model: CoatModel,
    step: int,
    patience: int | None = None,
    whole: Mapping[str, Tensor] | None = None,
) -> None:
    """What generation needs, and the heads; then the run is finished.

    `patience`: that ended it early. `whole`: the student's weights, where the model has them in parts.
    """
    student = model.student
    shutil.rmtree(folder.student, ignore_errors=True)
    if student.peft_model is None:
        student.model.save_pretrained(folder.student, state_dict=whole)
    else:
        save_adapter(student, folder.student)
        if whole := unfrozen(student.model):
            save_weights(whole, folder.student / UNFROZEN_FILE)
    student.processor.save_pretrained(folder.student)
    save_weights(head_weights(model), folder.heads)
    done = {"step": step, "think_ids": model.block.new_ids} | ({} if patience is None else {"patience": patience})
    storage.write_bytes(str(folder.done_file), storage.to_json(done))


def save_adapter(student: Student, folder: Path) -> None:
    """LoRA, and the rows of the think tokens (trainable tokens): whole embeddings would make it large."""
    student.peft_model.save_pretrained(folder, save_embedding_layers=False)


@dataclass(frozen=True)
class SavedStudent:
    """Where the weights of a run's student lie, and the step that they are of."""

    step: int
    path: Path  # RUN/student, or a checkpoint
    is_checkpoint: bool
    think_ids: tuple[int, ...]


def find_student(run: str | Path, step: Step = None) -> SavedStudent:
    """The student of a run as it was trained at `step`: a number, "best" (by `run.best`), or None.

    None is the finished student, or that of the newest checkpoint where the run is not finished.
    InputError: no run there, or no such checkpoint. RunError: the checkpoint is not whole.
    """
    folder = RunFolder(Path(run))
    if not folder.config_file.exists():
        raise InputError(f"{run}: no config.toml; expected what `coat train --out` wrote")
    if folder.finished and step in (None, folder.done_step):
        done = storage.read_json(str(folder.done_file))
        return SavedStudent(int(done["step"]), folder.student, False, tuple(done["think_ids"]))
    checkpoint = chosen_checkpoint(folder, step)
    return SavedStudent(step_of(checkpoint), checkpoint, True, tuple(read_state(checkpoint)["think_ids"]))


def load_run(run: str | Path, device: str | None = None, step: Step = None) -> Trained:
    """The trained student of a run at `step` (see `find_student`), on `device` (default: a GPU where there is one).

    Its `step` says which one it is. Where the run keeps a moving average (`optim.ema`), it has that for weights.
    InputError: no run there, or no such checkpoint. RunError: its weights do not fit, or are not whole.
    """
    folder, saved = RunFolder(Path(run)), find_student(run, step)
    config, longest_s = folder.config, RunData(folder.path).block_s
    if config.lora.full and not saved.is_checkpoint:
        student = load_student(str(folder.student), config.student.dtype)
        block = ThinkingBlock.add_to(student, config.thinking, longest_s)
    else:
        # Order: add tokens, resize, add and load what was trained.
        student = load_student(config.student.path, config.student.dtype, quantize=config.student.quantize)
        if folder.base_file.exists():  # runs of before have none
            folder.check_base(config.student.path, student.digest)
        block = ThinkingBlock.add_to(student, config.thinking, longest_s)
        choose_trained(student, block, config)
        if saved.is_checkpoint:
            weights = dict(student.model.named_parameters())
            load_from_checkpoint(weights, STUDENT_PREFIX, saved.path, averaged=config.optim.ema is not None)
        else:
            load_adapter(student, saved.path)
            if whole := unfrozen(student.model):
                load_weights(saved.path / UNFROZEN_FILE, whole)
    block.check_ids(saved.think_ids, str(saved.path))
    student.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Trained(student, block, config, saved.step)


def load_model(run: str | Path, device: str | None = None, step: Step = None) -> CoatModel:
    """The student of a run with its heads, in eval mode: what the analysis of a run reads. See `load_run`.

    RunError where heads are missing or do not fit.
    """
    trained, folder = load_run(run, device, step), RunFolder(Path(run))
    saved = find_student(run, trained.step)  # a run that is at work may have a newer checkpoint by now
    config, student = trained.config, trained.student
    experts = experts_of(config, folder.index)
    model = CoatModel(student, trained.block, *heads_of(config, student.hidden_size, experts)).eval()
    if saved.is_checkpoint:
        for part, heads in model.named_heads().items():
            load_from_checkpoint(
                dict(heads.named_parameters()), f"{part}.", saved.path, averaged=config.optim.ema is not None
            )
    else:
        load_weights(folder.heads, head_weights(model))
    return model.to(student.model.device)


def head_weights(model: CoatModel) -> dict[str, Tensor]:
    """By their names in RUN/heads.safetensors, where those of `CoatModel.heads` have no prefix."""
    prefixes = {"heads": "", "audio_heads": "audio_heads."}
    return {
        prefixes[part] + name: weight
        for part, heads in model.named_heads().items()
        for name, weight in heads.named_parameters()
    }


def load_from_checkpoint(parameters: Mapping[str, Tensor], prefix: str, checkpoint: Path, averaged: bool) -> None:
    """The weights of a checkpoint whose names begin so, into a model that is built as for training."""
    prefix = f"{AVERAGE if averaged else ''}{prefix}"
    trained = {prefix + name: p for name, p in parameters.items() if p.requires_grad}
    try:
        if is_sharded_checkpoint(checkpoint):
            load_shards(checkpoint, trained)
        else:
            load_weights(checkpoint / WEIGHTS_FILE, trained, ignored=lambda name: not name.startswith(prefix))
    except (OSError, SafetensorError) as e:  # a run that is at work drops old ones
        raise RunError(f"{checkpoint}: cannot be read ({one_line(e)}); if its run has dropped it, ask again") from e


def load_adapter(student: Student, folder: Path) -> None:
    """RunError where any weight of the adapter is missing or has no place: it is never applied in part."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = load_file(folder / "adapter_model.safetensors")
    expected = get_peft_model_state_dict(student.peft_model, save_embedding_layers=False)
    if wrong := sorted(set(weights) ^ set(expected)):
        raise RunError(f"{folder}: the adapter does not fit the student: {wrong[0]} and {len(wrong) - 1} more")
    set_peft_model_state_dict(student.peft_model, weights)
