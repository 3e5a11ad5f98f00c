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
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Prefix, Student, Unusable

PROMPTS = 4096  # whose lengths are remembered: a corpus asks few questions many times
NO_AUDIO = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Item:
    """One sequence, before padding."""

    id: str
    ids: list[int]  # prompt, block and response
    response: int  # index of the response's first id
    positions: list[int]  # of the states that heads read
    features: dict[str, Tensor]
    seconds: float
    targets: Mapping[str, np.ndarray]  # [N, D]
    answers: tuple[range, ...] = ()  # of earlier turns, that have labels, too


def render_prompt(prompt: str, choices: Sequence[str], how: str) -> str:
    """What the student is asked, in training as in evaluation: nothing else is ever added to a prompt."""
    return f"{prompt}\nChoices: {', '.join(choices)}" if choices and how == "append" else prompt


def ask_of(sample: Sample, config: DataConfig) -> tuple[str, str | None]:
    """Prompt and response of a sample; no response: it is distilled only.

    A sample with text alone is transcribed (`data.transcribe_prompt`).
    """
    if sample.prompt is None and sample.response is None and sample.text is not None and not sample.text_only:
        return config.transcribe_prompt, sample.text
    prompt = config.transcribe_prompt if sample.prompt is None else sample.prompt
    return render_prompt(prompt, sample.choices, config.choices), sample.response


class Collator:
    """Builds what a student is given, with the targets of the chosen experts."""

    def __init__(self, student: Student, block: ThinkingBlock, index: ShardIndex, experts: Sequence[str]) -> None:
        self.student, self.block, self.index = student, block, index
        self.experts = {name: index.experts[name].spec for name in experts}
        self.prompt_positions = lru_cache(PROMPTS)(student.prompt_positions)

    def length(self, raw: RawSample, config: DataConfig) -> int:
        """Positions of the sequence that `item` makes, without decoding; 0 where `item` will refuse it."""
        try:
            meta = decode_meta(raw)
            seconds = seconds_of(raw, meta) or 0.0
            unheard = Sample(key=raw.key, samples_S=NO_AUDIO, sample_rate=1, **decode_texts(raw, meta))
            prompt, response = ask_of(unheard, config)
            answer = 0 if response is None else len(self.student.response_ids(response))
            if unheard.text_only:
                return self.prompt_positions(prompt, 0, unheard.turns) + answer
            audio = self.student.audio_positions(round(seconds * self.student.sample_rate))
            return self.prompt_positions(prompt, 1, unheard.turns) + audio + self.block.size(seconds) + answer
        except (BadSample, Unusable):
            return 0

    def item(self, sample: Sample, config: DataConfig) -> Item:
        """BadSample or Unusable where there is nothing to learn from it, or the student cannot take it whole."""
        prompt, response = ask_of(sample, config)
        targets = {name: sample.targets[name] for name in self.experts if name in sample.targets}
        learned = [] if config.turns == "last" else sample.turns
        if response is None and not targets and not learned:
            raise BadSample("nothing_to_learn", f"{sample.id}: neither a response nor a target of a trained expert")
        if config.max_seconds is not None and sample.seconds > config.max_seconds:
            raise Unusable("too_long", f"{sample.id}: {sample.seconds:.2f} s; data.max_seconds is smaller")
        heard_S = None if sample.text_only else Clip(sample.samples_S, sample.sample_rate).at(self.student.sample_rate)
        prefix = self.student.prefix(heard_S, prompt, sample.id, sample.turns)
        ids, positions = self.with_block(prefix, sample.seconds)
        answer = [] if response is None else self.student.response_ids(response)
        if config.batch_tokens is not None and len(ids) + len(answer) > config.batch_tokens:
            raise Unusable(
                "too_many_tokens", f"{sample.id}: {len(ids) + len(answer)} positions; data.batch_tokens is less"
            )
        at, inserted = self.block.place(prefix), len(ids) - len(prefix.ids)
        answers = (range(a.start + inserted, a.stop + inserted) if a.start >= at else a for a in prefix.answers)
        return Item(
            sample.id, [*ids, *answer], len(ids), positions, prefix.features, sample.seconds, targets,
            tuple(answers) if learned else (),
        )  # fmt: skip

    def with_block(self, prefix: Prefix, seconds: float) -> tuple[list[int], list[int]]:
        """The prompt's ids with the block, and the positions of the states that heads read."""
        ids, positions = self.block.insert(prefix, seconds)
        return ids, self.student.audio_indices(ids) if self.block.config.states == "audio" else positions

    @cached_property
    def silence(self) -> Item:
        """The shortest audio, with nothing to learn from it."""
        prefix = self.student.prefix(np.zeros(self.student.min_samples, np.float32), "")
        ids, positions = self.with_block(prefix, 0.0)
        return Item("", ids, len(ids), positions, prefix.features, 0.0, {})

    def batch(self, items: Sequence[Item]) -> Batch:
        """Pad on the right. At least one item.

        Where no item has audio, a row of silence follows: ranks must all reach every weight, also of audio tower and
        heads, or they wait for each other.
        """
        samples = tuple(i.id for i in items)
        if not any(i.features for i in items):
            items = [*items, self.silence]
        ids_BT = pad([i.ids for i in items], self.student.tokenizer.pad_token_id)
        mask_BT = pad([[1] * len(i.ids) for i in items], 0)
        labels_BT = pad([labels_of(i) for i in items], IGNORED)
        features = self.student.stack_features([i.features for i in items])
        return Batch(
            inputs={"input_ids": ids_BT, "attention_mask": mask_BT, **features},
            labels_BT=labels_BT,
            think_BK=pad([i.positions for i in items], 0),
            think_mask_BK=pad([[1] * len(i.positions) for i in items], 0).bool(),
            seconds_B=torch.tensor([i.seconds for i in items], dtype=torch.float32),
            targets={
                name: pad_targets([i.targets.get(name) for i in items], s.dim) for name, s in self.experts.items()
            },
            ids=samples,
        )


def labels_of(item: Item) -> list[int]:
    """The ids of answers, and IGNORED at all other positions."""
    labels = [IGNORED] * len(item.ids)
    for answer in (*item.answers, range(item.response, len(item.ids))):
        labels[answer.start : answer.stop] = item.ids[answer.start : answer.stop]
    return labels


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(r, dtype=torch.long) for r in rows], batch_first=True, padding_value=value)


def pad_targets(targets: Sequence[np.ndarray | None], dim: int) -> Targets:
    """Frames that hold something not finite are masked as a whole."""
    frames = max((len(t) for t in targets if t is not None), default=0)
    frames_BND = torch.zeros(len(targets), frames, dim)
    mask_BN = torch.zeros(len(targets), frames, dtype=torch.bool)
    for b, target in enumerate(targets):
        if target is not None:
            frames_ND = torch.from_numpy(target.astype(np.float32))
            frames_BND[b, : len(target)] = frames_ND.nan_to_num(0.0, 0.0, 0.0)
            mask_BN[b, : len(target)] = frames_ND.isfinite().all(-1)
    return Targets(frames_BND, mask_BN)
