"""A student that is asked here: a trained one with its block, or one without coat.

T positions of a sequence, N new tokens.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from coat.manifests import Clip, RunError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.evaluation.asking.ask import Answered, Ask, Timed
from coat.trainer.evaluation.checks.cost import Clock
from coat.trainer.evaluation.results import Subject
from coat.trainer.generation.generate import EncodedPrompt, Trained, generation_config
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.registry import load_student

SHOWN = ("do_sample", "num_beams", "repetition_penalty", "no_repeat_ngram_size")  # of what decides the greedy answer


@dataclass(frozen=True)
class Prepared:
    encoded: EncodedPrompt
    block: int  # positions of the block in it


class StudentAsker:
    def __init__(self, trained: Trained, subject: Subject) -> None:
        self.trained, self.subject = trained, subject

    def positions(self, ask: Ask, seconds: float) -> int:
        student, with_audio = self.trained.student, not ask.row.text_only
        text = student.prompt_positions(ask.prompt, int(with_audio), ask.row.turns)
        if not with_audio:
            return text + ask.max_new_tokens
        audio = student.audio_positions(round(seconds * student.sample_rate))
        return text + audio + self.trained.block.inserted_positions(seconds) + ask.max_new_tokens

    def prepare(self, ask: Ask, clip: Clip | None) -> Prepared:
        student, block = self.trained.student, self.trained.block
        samples_S = None if clip is None else clip.at(student.sample_rate)
        prefix = student.prefix(samples_S, ask.prompt, ask.row.audio_filepath or ask.row.id, ask.row.turns)
        ids, _ = block.insert(prefix, clip.seconds if clip else 0.0)
        return Prepared((ids, prefix.features), len(ids) - len(prefix.ids))

    @torch.inference_mode()
    def answer(self, prepared: Sequence[Prepared], max_new_tokens: int) -> list[Answered]:
        try:
            inputs = self.trained.pad_left([one.encoded for one in prepared])
            ids_BN = self.trained.generate(inputs, max_new_tokens)
        except torch.OutOfMemoryError as e:
            torch.cuda.empty_cache()
            raise RunError(
                f"out of memory with {len(prepared)} prompts of up to {max(len(p.encoded[0]) for p in prepared)} "
                "positions; the same command with a smaller --batch-tokens goes on"
            ) from e
        stops = torch.tensor(self.trained.student.chat.stop_ids, device=ids_BN.device)
        lengths = answer_lengths(ids_BN, stops)
        return [
            Answered(
                text=str(text),
                prompt_tokens=len(one.encoded[0]) - one.block,
                block_tokens=one.block,
                answer_tokens=length,
                cut=text.is_cut,
            )
            for one, text, length in zip(prepared, self.trained.decode(ids_BN), lengths, strict=True)
        ]

    @torch.inference_mode()
    def timed(self, ask: Ask, clip: Clip | None) -> Timed:
        """One answer by itself."""
        clock, start = Clock(), time.perf_counter()
        prepared = self.prepare(ask, clip)
        inputs = self.trained.pad_left([prepared.encoded])
        self.trained.generate(inputs, ask.max_new_tokens, streamer=clock)
        _, *tokens = clock.times  # the first is the prompt
        return Timed(
            seconds=tokens[-1] - start,
            first_token=tokens[0] - start,
            prompt_tokens=len(prepared.encoded[0]) - prepared.block,
            block_tokens=prepared.block,
            answer_tokens=len(tokens),
        )

    @contextmanager
    def base(self) -> Iterator["StudentAsker"]:
        """The same student without what a run has added: no adapter, no block.

        Where a run has changed its own weights, the base is read anew beside it.
        """
        trained, config = self.trained, self.trained.config
        no_block = config.thinking.model_copy(update={"count": 0, "rate_hz": None})
        has_changed = trained.student.peft_model is None or config.student.train
        if has_changed and self.subject.kind == "run":
            yield StudentAsker(
                base_student(config.student.path, config.student.dtype, device_of(trained)), self.subject
            )
            return
        adapter = trained.student.peft_model
        with adapter.disable_adapter() if adapter is not None else nullcontext():
            yield StudentAsker(
                Trained(trained.student, ThinkingBlock.add_to(trained.student, no_block), config), self.subject
            )


def device_of(trained: Trained) -> str:
    return str(trained.student.model.device)


def answer_lengths(ids_BN: torch.Tensor, stops: torch.Tensor) -> list[int]:
    """New tokens of each row, the one that ends it included."""
    is_stop_BN = torch.isin(ids_BN, stops)
    before_end_BN = is_stop_BN.cumsum(1) - is_stop_BN.long() == 0
    return before_end_BN.sum(1).tolist()


def subject_of(trained: Trained, kind: Any, source: str, step: int | None = None) -> Subject:
    student, block = trained.student, trained.block
    config = generation_config(student, block)
    return Subject(
        kind=kind,
        source=source,
        model_type=student.model_type,
        step=step,
        digest=student.digest,
        block_positions=len(block.ids_K),
        dtype=str(next(student.model.parameters()).dtype).removeprefix("torch."),
        generation={name: getattr(config, name) for name in SHOWN},
    )


def base_student(source: str, dtype: str, device: str | None = None) -> Trained:
    """A student as its makers left it: no block, no adapter. InputError where there is none at `source`."""
    config = TrainConfig.from_dict(
        {
            "student": {"path": source, "dtype": dtype},
            "thinking": {"count": 0},
            "data": {"shards": "none"},  # neither is read or written
            "run": {"out": "none"},
        },
        source,
    )
    student = load_student(source, dtype)
    student.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Trained(student, ThinkingBlock.add_to(student, config.thinking), config)
