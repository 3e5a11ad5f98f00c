"""Samples to batches: prompt, thinking block, response, labels and targets.

B batch, T positions of a sequence, K think positions, N frames, D dim. Sequences are padded on the right;
generation pads on the left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from coat.manifests import Clip, ShardIndex
from coat.trainer.config.sections import DataConfig
from coat.trainer.data.decoding import decode_meta, decode_texts, seconds_of
from coat.trainer.data.samples import BadSample, RawSample, Sample
from coat.trainer.model.batch import IGNORED, Batch, Targets
from coat.trainer.model.hiding import HiddenInRow, audio_hidden, hidden_in
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Prefix, Student
from coat.trainer.students.unusable import UnusableInput

PROMPT_CACHE = 4096  # prompts whose lengths are remembered: a corpus asks few questions many times
NO_AUDIO = np.zeros(0, np.float32)


@dataclass(frozen=True)
class EncodedSample:
    """One sequence, before padding."""

    id: str
    ids: list[int]  # prompt, block and response
    response: int  # index of the response's first id
    positions: list[int]  # of the states that heads read
    audio: list[int]  # of the audio's, where `thinking.states` is "both": heads of their own read them
    features: dict[str, Tensor]
    seconds: float
    targets: Mapping[str, np.ndarray]  # [N, D]
    answers: tuple[range, ...] = ()  # of earlier turns, that have labels, too
    hideable: HiddenInRow | None = None  # where `thinking.hide_audio` is given, and the sample has a block


def render_prompt(prompt: str, choices: Sequence[str], choices_mode: str) -> str:
    """The prompt as the student gets it, in training as in evaluation: nothing else is ever added to it."""
    return f"{prompt}\nChoices: {', '.join(choices)}" if choices and choices_mode == "append" else prompt


def prompt_and_response(sample: Sample, config: DataConfig) -> tuple[str, str | None]:
    """Prompt and response of a sample; no response: it is distilled only.

    A sample with text alone is transcribed (`data.transcribe_prompt`).
    """
    if sample.prompt is None and sample.response is None and sample.text is not None and not sample.text_only:
        return config.transcribe_prompt, sample.text
    prompt = config.transcribe_prompt if sample.prompt is None else sample.prompt
    return render_prompt(prompt, sample.choices, config.choices), sample.response


class Collator:
    """Encodes samples for a student and pads them to batches, with the targets of the chosen experts."""

    def __init__(self, student: Student, block: ThinkingBlock, index: ShardIndex, experts: Sequence[str]) -> None:
        self.student, self.block, self.index = student, block, index
        self.experts = {name: index.experts[name].spec for name in experts}
        self.prompt_positions = lru_cache(PROMPT_CACHE)(student.prompt_positions)

    def sequence_length(self, raw: RawSample, config: DataConfig) -> int:
        """Positions of the sequence that `encode` makes, without decoding; 0 where `encode` will refuse it."""
        try:
            meta = decode_meta(raw)
            seconds = seconds_of(raw, meta) or 0.0
            without_audio = Sample(key=raw.key, samples_S=NO_AUDIO, sample_rate=1, **decode_texts(raw, meta))
            prompt, response = prompt_and_response(without_audio, config)
            answer = 0 if response is None else len(self.student.chat.response_ids(response))
            if without_audio.text_only:
                return self.prompt_positions(prompt, 0, without_audio.turns) + answer
            audio = self.student.audio_positions(round(seconds * self.student.sample_rate))
            block = self.block.inserted_positions(seconds)
            return self.prompt_positions(prompt, 1, without_audio.turns) + audio + block + answer
        except (BadSample, UnusableInput):
            return 0

    def encode(self, sample: Sample, config: DataConfig) -> EncodedSample:
        """BadSample or UnusableInput where there is nothing to learn from it, or the student cannot take it whole."""
        prompt, response = prompt_and_response(sample, config)
        targets = {name: sample.targets[name] for name in self.experts if name in sample.targets}
        earlier_turns = [] if config.turns == "last" else sample.turns
        if response is None and not targets and not earlier_turns:
            raise BadSample("nothing_to_learn", f"{sample.id}: neither a response nor a target of a trained expert")
        if config.max_seconds is not None and sample.seconds > config.max_seconds:
            raise UnusableInput(
                "too_long", f"{sample.id}: {sample.seconds:.2f} s; data.max_seconds is {config.max_seconds:g}"
            )
        clip = Clip(sample.samples_S, sample.sample_rate)
        audio_S = None if sample.text_only else clip.at(self.student.sample_rate)
        prefix = self.student.prefix(audio_S, prompt, sample.id, sample.turns)
        ids, positions, audio = self.with_block(prefix, sample.seconds)
        answer = [] if response is None else self.student.chat.response_ids(response)
        self.check_length(sample.id, len(ids) + len(answer), config)
        block_start, inserted = self.block.insertion_index(prefix), len(ids) - len(prefix.ids)
        answers = (  # of earlier turns, moved by the block
            range(a.start + inserted, a.stop + inserted) if a.start >= block_start else a for a in prefix.answers
        )
        return EncodedSample(
            sample.id, [*ids, *answer], len(ids), positions, audio, prefix.features, sample.seconds, targets,
            tuple(answers) if earlier_turns else (), self.hideable(ids),
        )  # fmt: skip

    def check_length(self, identity: str, positions: int, config: DataConfig) -> None:
        """UnusableInput where a sequence is longer than a batch may be, or than the student's positions reach."""
        limits = [
            ("data.batch_tokens", config.batch_tokens),
            ("data.max_tokens", config.max_tokens),
            ("of the student", self.student.max_positions),
        ]
        for whose, limit in limits:
            if limit is not None and positions > limit:
                raise UnusableInput("too_many_tokens", f"{identity}: {positions} positions; {limit} fit ({whose})")

    def with_block(self, prefix: Prefix, seconds: float) -> tuple[list[int], list[int], list[int]]:
        """The prompt's ids with the block; positions of the states that heads read, and that audio heads read."""
        ids, block = self.block.insert(prefix, seconds)
        if self.block.config.states == "think":
            return ids, block, []
        audio = self.student.audio_indices(ids)
        return (ids, block, audio) if self.block.config.states == "both" else (ids, audio, [])

    def hideable(self, ids: Sequence[int]) -> HiddenInRow | None:
        if not self.block.config.hide_audio or not (block := self.block.indices(ids)):
            return None
        return audio_hidden(self.student.audio_indices(ids), block, self.block.config)

    @cached_property
    def silence(self) -> EncodedSample:
        """The shortest audio, with nothing to learn from it."""
        prefix = self.student.prefix(np.zeros(self.student.min_samples, np.float32), "")
        ids, positions, audio = self.with_block(prefix, 0.0)
        return EncodedSample("", ids, len(ids), positions, audio, prefix.features, 0.0, {})

    def collate(self, encoded: Sequence[EncodedSample]) -> Batch:
        """Pad on the right. At least one sample.

        Where no sample has audio, a row of silence follows: ranks must all reach every weight, also of audio tower and
        heads, or they wait for each other.
        """
        ids = tuple(sample.id for sample in encoded)
        if not any(sample.features for sample in encoded):
            encoded = [*encoded, self.silence]
        ids_BT = pad_ids([sample.ids for sample in encoded], self.student.tokenizer.pad_token_id)
        mask_BT = pad_ids([[1] * len(sample.ids) for sample in encoded], 0)
        labels_BT = pad_ids([labels_of(sample) for sample in encoded], IGNORED)
        features = self.student.stack_features([sample.features for sample in encoded])
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT, **features}
        think_BK, think_mask_BK = pad_positions([sample.positions for sample in encoded])
        audio_BK = audio_mask_BK = None
        if self.block.config.states == "both":
            audio_BK, audio_mask_BK = pad_positions([sample.audio for sample in encoded])
        hidden = None
        if self.block.config.hide_audio:
            hidden = hidden_in([sample.hideable for sample in encoded], ids_BT.shape[1])
        return Batch(
            inputs=inputs,
            indices=self.student.indices(inputs),
            labels_BT=labels_BT,
            think_BK=think_BK,
            think_mask_BK=think_mask_BK,
            seconds_B=torch.tensor([sample.seconds for sample in encoded], dtype=torch.float32),
            targets={
                name: pad_targets([sample.targets.get(name) for sample in encoded], spec.dim)
                for name, spec in self.experts.items()
            },
            ids=ids,
            audio_BK=audio_BK,
            audio_mask_BK=audio_mask_BK,
            hidden=hidden,
        )


def labels_of(sample: EncodedSample) -> list[int]:
    """The ids of answers, and IGNORED at all other positions."""
    labels = [IGNORED] * len(sample.ids)
    for answer in (*sample.answers, range(sample.response, len(sample.ids))):
        labels[answer.start : answer.stop] = sample.ids[answer.start : answer.stop]
    return labels


def pad_ids(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(r, dtype=torch.long) for r in rows], batch_first=True, padding_value=value)


def pad_positions(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """`[B, K]` positions, and which of them are there."""
    return pad_ids(rows, 0), pad_ids([[1] * len(row) for row in rows], 0).bool()


def pad_targets(targets: Sequence[np.ndarray | None], dim: int) -> Targets:
    """In float16 where all are (losses widen them on the device), else float32; frames that hold something not finite
    are masked as a whole.
    """
    present = [t for t in targets if t is not None]
    dtype = np.float16 if present and all(t.dtype == np.float16 for t in present) else np.float32
    frames = max((len(t) for t in present), default=0)
    frames_BND = torch.from_numpy(np.zeros((len(targets), frames, dim), dtype))
    mask_BN = torch.zeros(len(targets), frames, dtype=torch.bool)
    for b, target in enumerate(targets):
        if target is not None:
            frames_ND = torch.from_numpy(target.astype(dtype))
            frames_BND[b, : len(target)] = frames_ND.nan_to_num(0.0, 0.0, 0.0)
            mask_BN[b, : len(target)] = frames_ND.isfinite().all(-1)
    return Targets(frames_BND, mask_BN)
