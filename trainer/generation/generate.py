"""Ask a trained student: the block is part of the one prefill, and every further call is of one token.

B batch, T positions of a sequence, N new tokens, S samples of audio.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from coat.manifests import Clip, InputError, RunError, decode, storage
from coat.manifests.audio.clip import AudioError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import render_prompt
from coat.trainer.model.lora import add_lora
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.run_folder import RunFolder
from coat.trainer.students.base import Student, Turns
from coat.trainer.students.registry import load_student

Audio = str | Path | tuple[NDArray[np.float32], int]  # a file, or mono samples and their rate in Hz
Heard = Audio | list[Audio] | None  # one, several (for students that take them), or none


class Question(NamedTuple):
    """What is asked; `turns` are prompts and answers before it."""

    audio: Heard
    prompt: str
    choices: Sequence[str] = ()
    turns: Turns = ()


Row = tuple[list[int], dict[str, torch.Tensor]]  # ids, and the features of their audio
Asked = Question | tuple[Heard, str, Sequence[str]]
TEXT_INPUTS = ("input_ids", "attention_mask")


class Trained:
    """A student with its thinking block, in eval mode."""

    def __init__(self, student: Student, block: ThinkingBlock, config: TrainConfig) -> None:
        self.student, self.block, self.config = student, block, config
        # Never in train mode or with checkpointing: the cache is off there, and the text wrong.
        self.student.model.eval()

    def ask(
        self, audio: Heard, prompt: str, *, choices: Sequence[str] = (), turns: Turns = (), max_new_tokens: int = 64
    ) -> str:
        """The answer to a prompt about an audio, greedily. InputError: audio that cannot be heard whole."""
        return self.ask_many([Question(audio, prompt, choices, turns)], max_new_tokens=max_new_tokens)[0]

    @torch.inference_mode()
    def ask_many(self, asked: Sequence[Asked], *, max_new_tokens: int = 64) -> list[str]:
        """Answers to Questions, or (audio, prompt, choices), as one batch."""
        return self.texts(self.generate(self.inputs(asked), max_new_tokens))

    @torch.inference_mode()
    def ask_each(self, audio: Heard, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """Answers to several prompts about one audio, each as `ask` gives it.

        The positions that all prompts begin with (the audio, and the block where it stands behind it) are computed
        once, and their keys and values kept from one prompt to the next.
        """
        heard = read_all(audio)  # once
        rows = [self.padded([self.row(heard, Question(audio, prompt))]) for prompt in prompts]
        ids = [row["input_ids"][0].tolist() for row in rows]
        shared = common_prefix(ids)
        if len(rows) < 2 or not shared or any(self.student.audio_indices(row[shared:]) for row in ids):
            return [text for row in rows for text in self.texts(self.generate(row, max_new_tokens))]
        cache = self.student.prefill({**rows[0], **{name: rows[0][name][:, :shared] for name in TEXT_INPUTS}})
        answers = []
        for row in rows:
            ids_1N = self.generate({name: row[name] for name in TEXT_INPUTS}, max_new_tokens, past_key_values=cache)
            answers += self.texts(ids_1N)
            cache.crop(shared - cache.get_seq_length())  # a negative number: so many are taken off
        return answers

    @torch.inference_mode()
    def generate(self, inputs: Mapping[str, torch.Tensor], max_new_tokens: int, **more: Any) -> torch.Tensor:
        """New token ids, `[B, N]`, greedily; rows that end sooner are padded."""
        config = generation_config(self.student, self.block)
        config.max_new_tokens = max_new_tokens
        return self.student.model.generate(**inputs, **more, generation_config=config)[
            :, inputs["input_ids"].shape[1] :
        ]

    def texts(self, ids_BN: torch.Tensor) -> list[str]:
        return [text.strip() for text in self.student.tokenizer.batch_decode(ids_BN, skip_special_tokens=True)]

    def inputs(self, asked: Sequence[Asked]) -> dict[str, torch.Tensor]:
        """Prompts with audio and block, padded on the left."""
        return self.padded([self.row(read_all(one.audio), one) for one in map(question, asked)])

    def row(self, heard: Sequence[tuple[Clip, str]], asked: Question) -> Row:
        """A prompt with block about audio that is decoded, and its features."""
        samples = [clip.at(self.student.sample_rate) for clip, _ in heard] or None
        text = render_prompt(asked.prompt, asked.choices, self.config.data.choices)
        prefix = self.student.prefix(samples, text, ", ".join(name for _, name in heard), asked.turns)
        return self.block.insert(prefix, sum(clip.seconds for clip, _ in heard))[0], prefix.features

    def padded(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        ids = [one for one, _ in rows]
        longest, device = max(map(len, ids)), self.student.model.device
        pad_id = self.student.tokenizer.pad_token_id
        inputs = {
            "input_ids": torch.tensor([[pad_id] * (longest - len(r)) + r for r in ids]),
            "attention_mask": torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in ids]),
            **self.student.stack_features([features for _, features in rows]),
        }
        return {name: tensor.to(device) for name, tensor in inputs.items()}


def generation_config(student: Student, block: ThinkingBlock) -> Any:
    """transformers' GenerationConfig of an answer; an export has the same.

    The checkpoint's own, but greedy, ended by a turn's end, and without think tokens.
    """
    config = copy.deepcopy(student.model.generation_config)
    config._from_model_config = False  # or a checkpoint that is saved with it might have it made anew
    sampling = dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "typical_p", "max_length", "max_new_tokens"))
    config.update(
        **sampling,
        do_sample=False,
        suppress_tokens=block.new_ids or None,
        eos_token_id=student.stop_ids,
        pad_token_id=student.tokenizer.pad_token_id,
    )
    return config


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many ids all rows begin with; each has at least one more."""
    same = takewhile(lambda ids: len(set(ids)) == 1, zip(*rows, strict=False))
    return min(sum(1 for _ in same), min(map(len, rows), default=1) - 1)


def read_all(audio: Heard) -> list[tuple[Clip, str]]:
    return list(map(read_audio, audio if isinstance(audio, list) else [] if audio is None else [audio]))


def question(asked: Asked) -> Question:
    return asked if isinstance(asked, Question) else Question(*asked)


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
    trained_ids = storage.read_json(str(folder.done_file))["think_ids"]
    block.check_ids(trained_ids, str(run))
    student.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Trained(student, block, config)


def load_adapter(student: Student, folder: Path) -> None:
    """RunError where any weight of the adapter is missing or has no place: never half applied."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = load_file(folder / "adapter_model.safetensors")
    expected = get_peft_model_state_dict(student.peft_model, save_embedding_layers=False)
    if wrong := sorted(set(weights) ^ set(expected)):
        raise RunError(f"{folder}: the adapter does not fit the student: {wrong[0]} and {len(wrong) - 1} more")
    set_peft_model_state_dict(student.peft_model, weights)
