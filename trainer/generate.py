"""Ask a trained student: the block is part of the one prefill, and every further call is of one token.

B batch, T positions of a sequence, S samples of audio.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from coat.manifests import Clip, InputError, RunError, decode, files
from coat.manifests.audio import AudioError
from coat.trainer.batches import render_prompt
from coat.trainer.config import TrainConfig
from coat.trainer.folder import RunFolder
from coat.trainer.model import add_lora
from coat.trainer.students import load_student
from coat.trainer.students.base import Student
from coat.trainer.thinking import ThinkingBlock

Audio = str | Path | tuple[NDArray[np.float32], int]  # a file, or mono samples and their rate in Hz


class Trained:
    """A student with its thinking block, in eval mode."""

    def __init__(self, student: Student, block: ThinkingBlock, config: TrainConfig) -> None:
        self.student, self.block, self.config = student, block, config
        # Never in train mode or with checkpointing: the cache is off there, and the text wrong.
        self.student.model.eval()

    def ask(self, audio: Audio, prompt: str, *, choices: Sequence[str] = (), max_new_tokens: int = 64) -> str:
        """The answer to a prompt about one audio, greedily. InputError: audio that cannot be heard whole."""
        return self.ask_many([(audio, prompt, choices)], max_new_tokens=max_new_tokens)[0]

    @torch.inference_mode()
    def ask_many(self, asked: Sequence[tuple[Audio, str, Sequence[str]]], *, max_new_tokens: int = 64) -> list[str]:
        """Answers to (audio, prompt, choices), as one batch."""
        inputs = self.inputs(asked)
        ids_BT = self.student.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            suppress_tokens=self.block.new_ids or None,
            eos_token_id=self.student.stop_ids,
            pad_token_id=self.student.tokenizer.pad_token_id,
        )
        new_BT = ids_BT[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.student.tokenizer.batch_decode(new_BT, skip_special_tokens=True)]

    def inputs(self, asked: Sequence[tuple[Audio, str, Sequence[str]]]) -> dict[str, torch.Tensor]:
        """Prompts with audio and block, padded on the left."""
        rows, features = [], []
        for audio, prompt, choices in asked:
            clip, name = read_audio(audio)
            text = render_prompt(prompt, choices, self.config.data.choices)
            prefix = self.student.prefix(clip.at(self.student.sample_rate), text, name)
            rows.append(self.block.insert(prefix, clip.seconds)[0])
            features.append(prefix.features)
        longest, device = max(map(len, rows)), self.student.model.device
        pad_id = self.student.tokenizer.pad_token_id
        inputs = {
            "input_ids": torch.tensor([[pad_id] * (longest - len(r)) + r for r in rows]),
            "attention_mask": torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows]),
            **self.student.stack_features(features),
        }
        return {name: tensor.to(device) for name, tensor in inputs.items()}


def read_audio(audio: Audio) -> tuple[Clip, str]:
    if isinstance(audio, tuple):
        samples_S, rate = audio
        return Clip(np.asarray(samples_S, dtype=np.float32), rate), "audio"
    try:
        return decode(str(audio)), str(audio)
    except AudioError as e:
        raise InputError(str(e)) from e


def load_run(run: str | Path, device: str | None = None) -> Trained:
    """The trained student of a finished run, on `device` (default: a GPU where there is one).

    InputError: no run there. RunError: the run is not finished, or its weights do not fit.
    """
    folder = RunFolder(Path(run))
    if not folder.config_file.exists():
        raise InputError(f"{run}: no config.toml; expected what `coat train --out` wrote")
    if not folder.finished:
        raise RunError(f"{run}: this run is not finished; the same `coat train` command goes on with it")
    config = TrainConfig.read(str(folder.config_file))
    if config.lora.full:
        student = load_student(str(folder.student), config.student.dtype)
        block = ThinkingBlock.add_to(student, config.thinking)
    else:
        # Order: add tokens, resize, load the adapter.
        student = load_student(config.student.path, config.student.dtype)
        block = ThinkingBlock.add_to(student, config.thinking)
        add_lora(student, block, config)
        load_adapter(student, folder.student)
    trained_ids = files.read_json(str(folder.done_file))["think_ids"]
    block.check_ids(trained_ids, str(run))
    student.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Trained(student, block, config)


def load_adapter(student: Student, folder: Path) -> None:
    """RunError where any weight of the adapter is missing or has no place: never half applied."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = load_file(folder / "adapter_model.safetensors")
    expected = get_peft_model_state_dict(student.adapted, save_embedding_layers=False)
    if wrong := sorted(set(weights) ^ set(expected)):
        raise RunError(f"{folder}: the adapter does not fit the student: {wrong[0]} and {len(wrong) - 1} more")
    set_peft_model_state_dict(student.adapted, weights)
