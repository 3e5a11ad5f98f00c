"""The samples of a shard set that a student can take, in order: for all that looks at a model and trains nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator, EncodedSample, prompt_and_response
from coat.trainer.data.decoding import decode_sample
from coat.trainer.data.samples import BadSample, Sample
from coat.trainer.data.shard_reading import read_shard_or_lost
from coat.trainer.students.unusable import UnusableInput

Item = TypeVar("Item")


@dataclass(frozen=True)
class UsableSample:
    number: int  # in the order of the tars, from 0
    sample: Sample
    encoded: EncodedSample


def usable_samples(
    collator: Collator,
    config: TrainConfig,
    limit: int | None = None,
    rank: int = 0,
    ranks: int = 1,
    skipped: Callable[[BadSample | UnusableInput], None] = lambda why: None,
) -> Iterator[UsableSample]:
    """Of the first `limit` in the tars of the collator's index, numbers rank, rank + ranks, ...

    Those that are broken or that the student cannot take whole are left out, and `skipped` is told.
    """
    index = collator.index
    raw = (raw for shard in index.shards for raw in read_shard_or_lost(index, shard, collator.experts))
    for number, one in enumerate(islice(raw, limit)):
        if number % ranks != rank:
            continue
        try:
            sample = decode_sample(one, index, collator.experts)
            yield UsableSample(number, with_prompt(sample, config), collator.encode(sample, config.data))
        except (BadSample, UnusableInput) as why:
            skipped(why)


def with_prompt(sample: Sample, config: TrainConfig) -> Sample:
    """A sample that has text alone gets the prompt that is asked of it in training, and its text as the response."""
    if sample.prompt is not None:
        return sample
    prompt, response = prompt_and_response(replace(sample, choices=()), config.data)
    return replace(sample, prompt=prompt, response=response)


def within_budget(
    items: Iterator[Item], size: int, budget: int | None, positions: Callable[[Item], int]
) -> Iterator[list[Item]]:
    """Groups in their order, each of at most `size`, and of `budget` positions when padded to its longest."""
    group: list[Item] = []
    longest = 0
    for item in items:
        longest = max(longest, positions(item))
        if group and (len(group) == size or (budget is not None and longest * (len(group) + 1) > budget)):
            yield group
            group, longest = [], positions(item)
        group.append(item)
    if group:
        yield group
