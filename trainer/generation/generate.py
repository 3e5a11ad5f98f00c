"""Ask a trained student: the block is part of the one prefill, and every further call is of one token.

B batch, T positions of a sequence, N new tokens, S samples of audio.
"""

import copy
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessor, LogitsProcessorList

from coat.manifests import Clip, InputError, RunError, decode
from coat.manifests.audio.clip import AudioError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import render_prompt
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from coat.trainer.students.chat import Turns

Audio = str | Path | tuple[NDArray[np.float32], int]  # a file, or mono samples and their rate in Hz
Audios = Audio | list[Audio] | None  # one, several (for students that take them), or none


class Question(NamedTuple):
    """A prompt about an audio; `turns` are prompts and answers before it."""

    audio: Audios
    prompt: str
    choices: Sequence[str] = ()
    turns: Turns = ()


class Answer(str):
    """A text. `is_cut`: it came to `max_new_tokens` before its end, and there would have been more."""

    __slots__ = ("is_cut",)
    is_cut: bool

    def __new__(cls, text: str, is_cut: bool = False) -> Self:
        answer = super().__new__(cls, text)
        answer.is_cut = is_cut
        return answer


EncodedPrompt = tuple[list[int], dict[str, torch.Tensor]]  # ids, and the features of their audio
QuestionOrTuple = Question | tuple[Audios, str, Sequence[str]]
TEXT_INPUTS = ("input_ids", "attention_mask")
MAX_NEW_TOKENS = 256  # of an answer: a transcript of a minute; one that ends sooner costs no more


class Trained:
    """A student with its thinking block, in eval mode. `step`: of its run, where it was loaded from one."""

    def __init__(self, student: Student, block: ThinkingBlock, config: TrainConfig, step: int | None = None) -> None:
        self.student, self.block, self.config, self.step = student, block, config, step
        # Never in train mode or with checkpointing: the cache is off there, and the text wrong.
        self.student.model.eval()

    def ask(
        self,
        audio: Audios,
        prompt: str,
        *,
        choices: Sequence[str] = (),
        turns: Turns = (),
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Answer:
        """The answer to a prompt about an audio, greedily. InputError: audio that cannot be heard whole."""
        return self.ask_many([Question(audio, prompt, choices, turns)], max_new_tokens=max_new_tokens)[0]

    @torch.inference_mode()
    def ask_many(self, questions: Sequence[QuestionOrTuple], *, max_new_tokens: int = MAX_NEW_TOKENS) -> list[Answer]:
        """Answers to Questions, or (audio, prompt, choices), as one batch."""
        return self.decode(self.generate(self.inputs(questions), max_new_tokens))

    @torch.inference_mode()
    def ask_each(self, audio: Audios, prompts: Sequence[str], *, max_new_tokens: int = MAX_NEW_TOKENS) -> list[Answer]:
        """Answers to several prompts about one audio, each as `ask` gives it.

        The positions that all prompts begin with (the audio, and the block where it stands behind it) are computed
        once, and their keys and values kept from one prompt to the next.
        """
        clips = read_clips(audio)  # once
        inputs = [self.pad_left([self.encode(clips, Question(audio, prompt))]) for prompt in prompts]
        ids = [one["input_ids"][0].tolist() for one in inputs]
        shared = common_prefix(ids)
        if len(inputs) < 2 or not shared or any(self.student.audio_indices(prompt_ids[shared:]) for prompt_ids in ids):
            return [answer for one in inputs for answer in self.decode(self.generate(one, max_new_tokens))]
        cache = self.student.prefill({**inputs[0], **{name: inputs[0][name][:, :shared] for name in TEXT_INPUTS}})
        answers: list[Answer] = []
        for one in inputs:
            ids_1N = self.generate({name: one[name] for name in TEXT_INPUTS}, max_new_tokens, past_key_values=cache)
            answers += self.decode(ids_1N)
            cache.crop(shared - cache.get_seq_length())  # a negative number: so many are taken off
        return answers

    @torch.inference_mode()
    def generate(self, inputs: Mapping[str, torch.Tensor], max_new_tokens: int, **options: Any) -> torch.Tensor:
        """New token ids, `[B, N]`, greedily; rows that end sooner are padded.

        Never one of the block's: not by `suppress_tokens` alone, which a checkpoint's own way of generating may leave
        out of account. RunError where there is one all the same.
        """
        config = generation_config(self.student, self.block)
        config.max_new_tokens = max_new_tokens
        processors = LogitsProcessorList([NeverSaid(self.block.new_ids)] if self.block.new_ids else [])
        ids_BN = self.student.model.generate(
            **inputs, **options, generation_config=config, logits_processor=processors
        )[:, inputs["input_ids"].shape[1] :]
        if said := sorted(set(ids_BN.unique().tolist()) & set(self.block.new_ids)):
            names = ", ".join(self.student.tokenizer.convert_ids_to_tokens(said))
            raise RunError(f"{self.student.source}: its answer holds think tokens ({names}), which are no text")
        return ids_BN

    def decode(self, ids_BN: torch.Tensor) -> list[Answer]:
        texts = self.student.tokenizer.batch_decode(ids_BN, skip_special_tokens=True)
        stops = torch.tensor(self.student.chat.stop_ids, device=ids_BN.device)
        is_cut_B = (~torch.isin(ids_BN, stops).any(dim=1)).tolist()
        return [Answer(text.strip(), is_cut) for text, is_cut in zip(texts, is_cut_B, strict=True)]

    def inputs(self, questions: Sequence[QuestionOrTuple]) -> dict[str, torch.Tensor]:
        """Prompts with audio and block, padded on the left."""
        return self.pad_left([self.encode(read_clips(one.audio), one) for one in map(as_question, questions)])

    def encode(self, clips: Sequence[tuple[Clip, str]], question: Question) -> EncodedPrompt:
        """A prompt with block about decoded audios, each with its name for messages."""
        samples = [clip.at(self.student.sample_rate) for clip, _ in clips] or None
        text = render_prompt(question.prompt, question.choices, self.config.data.choices)
        prefix = self.student.prefix(samples, text, ", ".join(name for _, name in clips), question.turns)
        return self.block.insert(prefix, sum(clip.seconds for clip, _ in clips))[0], prefix.features

    def pad_left(self, prompts: Sequence[EncodedPrompt]) -> dict[str, torch.Tensor]:
        longest, device = max(len(ids) for ids, _ in prompts), self.student.model.device
        pad_id = self.student.tokenizer.pad_token_id
        inputs = {
            "input_ids": torch.tensor([[pad_id] * (longest - len(ids)) + ids for ids, _ in prompts]),
            "attention_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids, _ in prompts]),
            **self.student.stack_features([features for _, features in prompts]),
        }
        return {name: tensor.to(device) for name, tensor in inputs.items()}


class NeverSaid(LogitsProcessor):
    """Makes tokens impossible, whatever a generation config says."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids_K = torch.tensor(ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(-1, self.ids_K.to(scores.device), -torch.inf)


def generation_config(student: Student, block: ThinkingBlock) -> Any:
    """transformers' GenerationConfig of an answer; an export has the same.

    The checkpoint's own, but greedy with nothing laid over it (some checkpoints sample, or punish repetition), ended by
    a turn's end, and without think tokens.
    """
    config = copy.deepcopy(student.model.generation_config)
    config._from_model_config = False  # or a checkpoint that is saved with it might have it made anew
    sampling = dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "typical_p", "max_length", "max_new_tokens"))
    config.update(
        **sampling,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        suppress_tokens=block.new_ids or config.suppress_tokens,  # an export of coat, asked as a student, has its own
        eos_token_id=student.chat.stop_ids,
        pad_token_id=student.tokenizer.pad_token_id,
    )
    return config


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many ids all prompts begin with; each has at least one more."""
    same = takewhile(lambda ids: len(set(ids)) == 1, zip(*prompts, strict=False))
    return min(sum(1 for _ in same), min(map(len, prompts), default=1) - 1)


def as_question(question: QuestionOrTuple) -> Question:
    return question if isinstance(question, Question) else Question(*question)


def read_clips(audio: Audios) -> list[tuple[Clip, str]]:
    return list(map(read_clip, audio if isinstance(audio, list) else [] if audio is None else [audio]))


def read_clip(audio: Audio) -> tuple[Clip, str]:
    """Decoded, and its name for messages."""
    if isinstance(audio, tuple):
        samples_S, rate = audio
        return Clip(np.asarray(samples_S, dtype=np.float32), rate), "audio"
    try:
        return decode(str(audio)), str(audio)
    except AudioError as e:
        raise InputError(str(e)) from e
