"""The thinking block: K special positions between the audio and the response, part of the one prefill.

B batch, T positions of a sequence, K think positions, D hidden dim. The block stands in the token ids, never
in `inputs_embeds` (Qwen2-Audio would drop the audio), and is put there after the processor has expanded the
audio placeholder. Each position has a token of its own, so that their states do not become alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from coat.manifests import InputError, RunError
from coat.trainer.config.sections import ThinkingConfig
from coat.trainer.students.base import Prefix, Student

BEGIN, END = "<|audio_think_begin|>", "<|audio_think_end|>"
INIT_SEED = 20260618  # new rows are equal wherever a run is loaded


def think_token(k: int) -> str:
    return f"<|audio_think_{k}|>"


@dataclass(frozen=True)
class ThinkingBlock:
    """Where the block goes and which ids it has. `ids_K` has one for each position there can be."""

    config: ThinkingConfig
    begin_id: int
    end_id: int
    ids_K: tuple[int, ...]

    @classmethod
    def add_to(cls, student: Student, config: ThinkingConfig, longest_s: float | None = None) -> "ThinkingBlock":
        """Add the tokens to the student's tokenizer and their rows to its embeddings.

        A student that has them already (a run's own checkpoint) is left as it is. With `rate_hz` there are as many as
        audio of `longest_s` seconds needs (None: the longest that the student hears); longer audio has no more.
        """
        longest = student.max_seconds if longest_s is None else min(longest_s, student.max_seconds)
        think_tokens = [think_token(k) for k in range(max_think_positions(config, longest))]
        tokens = [BEGIN, *think_tokens, END] if think_tokens else []
        known = student.tokenizer.get_vocab()
        check_vocabulary(student, known)
        missing = [t for t in tokens if t not in known]
        if missing:
            student.tokenizer.add_tokens(missing, special_tokens=True)
        ids = student.tokenizer.convert_tokens_to_ids(tokens)
        if missing:
            grow_embeddings(student.model, student.tokenizer.convert_tokens_to_ids(missing), config.noise)
        return cls(config, *((ids[0], ids[-1], tuple(ids[1:-1])) if ids else (-1, -1, ())))

    @property
    def new_ids(self) -> list[int]:
        """Every id of the block: the rows that are trained, and that generation suppresses."""
        return [self.begin_id, *self.ids_K, self.end_id] if self.ids_K else []

    def indices(self, ids: Sequence[int]) -> list[int]:
        """Where the block stands in a row, with the tokens that begin and end it."""
        block = set(self.new_ids)
        return [i for i, token in enumerate(ids) if token in block]

    def check_ids(self, trained_ids: Sequence[int], source: str) -> None:
        """RunError where the block's tokens have other ids than when `source` was written."""
        if self.new_ids != list(trained_ids):
            raise RunError(
                f"{source}: its think tokens have ids {id_range(trained_ids)}, now {id_range(self.new_ids)}: the "
                "student or its tokenizer was changed since; put back the one it was trained with, or use another --out"
            )

    def think_positions(self, seconds: float) -> int:
        """K for audio of this length."""
        if self.config.rate_hz is None:
            return len(self.ids_K)
        return min(max(1, math.ceil(self.config.rate_hz * seconds - 1e-9)), len(self.ids_K))

    def inserted_positions(self, seconds: float) -> int:
        """Positions that `insert` adds."""
        return self.think_positions(seconds) + 2 if self.ids_K else 0

    def insertion_index(self, prefix: Prefix) -> int:
        """Index in the prefix where the block is put: just after the last audio, or at the end."""
        return prefix.audio_end if self.config.placement == "after_audio" else len(prefix.ids)

    def insert(self, prefix: Prefix, seconds: float) -> tuple[list[int], list[int]]:
        """The prompt's ids with the block in its place, and the positions of its K states. No audio, no block."""
        if not self.ids_K or not prefix.features:
            return prefix.ids, []
        at = self.insertion_index(prefix)
        block = [self.begin_id, *self.ids_K[: self.think_positions(seconds)], self.end_id]
        positions = list(range(at + 1, at + len(block) - 1))
        return [*prefix.ids[:at], *block, *prefix.ids[at:]], positions


def id_range(ids: Sequence[int]) -> str:
    return f"{min(ids)} to {max(ids)}" if ids else "none"


def check_vocabulary(student: Student, known: Mapping[str, int]) -> None:
    """InputError where a token has no row of its own: the tokenizer is another model's."""
    rows = student.model.get_input_embeddings().num_embeddings
    if known and max(known.values()) >= rows:
        raise InputError(
            f"{student.source}: its tokenizer has ids up to {max(known.values())}, its embeddings {rows} rows; "
            "take the tokenizer that the checkpoint was trained with"
        )


def max_think_positions(config: ThinkingConfig, max_seconds: float) -> int:
    if config.rate_hz is None or config.count == 0:
        return config.count
    return math.ceil(config.rate_hz * max_seconds - 1e-9)


def is_tied(model: Any) -> bool:
    """Whether its output embeddings are those of the input: by its class, not by its config alone, which some of
    transformers' classes do not heed.
    """
    return bool(model.get_expanded_tied_weights_keys(all_submodels=True))


@torch.no_grad()
def grow_embeddings(model: nn.Module, ids: Sequence[int], noise: float) -> None:
    """Give `ids` rows in the input embeddings (mean of the old rows, plus noise) and in the output's.

    The output's new rows are the old ones' mean: they are never a label and generation suppresses them.
    """
    embeddings: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    output: nn.Linear = model.get_output_embeddings()  # type: ignore[operator]
    old_rows = min(ids)
    mean_D, std_D = embeddings.weight[:old_rows].float().mean(0), embeddings.weight[:old_rows].float().std(0)
    output_mean_D = output.weight[:old_rows].float().mean(0)
    tied = output.weight is embeddings.weight
    rows = embeddings.num_embeddings
    if max(ids) >= rows:  # some checkpoints keep spare rows
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)  # type: ignore[operator]
        embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    if embeddings.weight.is_meta:  # a student without weights: see students/meta.py
        return
    generator = torch.Generator().manual_seed(INIT_SEED)
    noise_KD = noise * std_D.cpu() * torch.randn(len(ids), len(mean_D), generator=generator)
    new_KD = mean_D + noise_KD.to(mean_D.device)
    embeddings.weight[list(ids)] = new_KD.to(embeddings.weight.dtype)
    if not tied:
        output.weight[list(ids)] = output_mean_D.to(output.weight.dtype)
