"""One question about one clip as a sequence, and what each position of it is.

T positions, K positions whose states the heads read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coat.manifests import Clip
from coat.trainer.data.collator import render_prompt
from coat.trainer.generation.generate import Question, Trained
from coat.trainer.students.base import Student
from coat.trainer.students.chat import Turns

AUDIO, BLOCK, QUESTION, ANSWER, REST = ROLES = ("audio", "block", "question", "answer", "rest")
OTHER_TEXTS = "#", "@"  # unlike any question's first and last tokens, at least one of them


@dataclass(frozen=True)
class Asked:
    """A prompt with audio and block, without padding. `rest`: the chat's own tokens, and earlier turns."""

    ids: list[int]
    features: dict[str, Tensor]
    roles: tuple[str, ...]  # of ROLES, one a position
    states_K: tuple[int, ...]  # positions that the heads read; empty: none
    seconds: float

    def inputs(self, device: torch.device, answer: Sequence[int] = ()) -> dict[str, Tensor]:
        """What the student's forward takes, one row, with an answer behind the prompt."""
        ids_1T = torch.tensor([[*self.ids, *answer]])
        tensors = {"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T), **self.features}
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    def positions(self, role: str) -> list[int]:
        return [t for t, found in enumerate(self.roles) if found == role]

    def replaceable(self, role: str) -> list[int]:
        """Without the last position of the prompt: its state says the answer's first token, whatever its role is.

        A block before the response ends there.
        """
        return [t for t in self.positions(role) if t != len(self.ids) - 1]


def ask(trained: Trained, clip: Clip, name: str, question: Question) -> Asked:
    """UnusableInput where the student cannot hear or read it whole; `name` says in it whose it is."""
    student, block = trained.student, trained.block
    text = render_prompt(question.prompt, question.choices, trained.config.data.choices)
    prefix = student.prefix(clip.at(student.sample_rate), text, name, question.turns)
    ids, think = block.insert(prefix, clip.seconds)
    audio, in_block = set(student.audio_indices(ids)), set(block.new_ids)
    asked_of = question_span(student, text, question.turns, len(prefix.ids))
    inserted = len(ids) - len(prefix.ids)
    if block.insertion_index(prefix) <= asked_of.start:
        asked_of = range(asked_of.start + inserted, asked_of.stop + inserted)

    def role(t: int, token: int) -> str:
        if t in audio:
            return AUDIO
        if token in in_block:
            return BLOCK
        return QUESTION if t in asked_of else REST

    roles = tuple(role(t, token) for t, token in enumerate(ids))
    states = student.audio_indices(ids) if block.config.states == "audio" else think
    return Asked(ids, prefix.features, roles, tuple(states), clip.seconds)


def question_span(student: Student, prompt: str, turns: Turns, length: int) -> range:
    """Where the question stands in a prefix of `length` ids: what differs from chats that ask something else.

    Counted from the end, since audio is expanded, and stands before it.
    """
    own = chat_ids(student, prompt, turns)
    same_start, same_end = len(own), len(own)
    for text in OTHER_TEXTS:
        other = chat_ids(student, text, turns)
        same_start = min(same_start, equal_length(own, other))
        same_end = min(same_end, equal_length(own[::-1], other[::-1]))
    count = max(0, len(own) - same_start - same_end)
    return range(length - same_end - count, length - same_end)


def chat_ids(student: Student, prompt: str, turns: Turns) -> list[int]:
    return student.tokenizer(student.chat.render(prompt, 1, turns))["input_ids"]


def equal_length(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
