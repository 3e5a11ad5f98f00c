"""The states of a subject over a shard set: what the cache lacks is read from the model, unit by unit."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

import torch
import xxhash

from coat.analysis.layers import decoder_layers
from coat.analysis.probing.cache import (
    BLOCK_BYTES,
    Block,
    StatesSet,
    Unit,
    keep_facts,
    key_of,
    subject_facts,
    units_of,
)
from coat.analysis.probing.places import layer_numbers, positions_of, read_places
from coat.analysis.probing.subject import Subject
from coat.manifests import RunError, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator, EncodedSample
from coat.trainer.data.decoding import decode_meta, decode_sample
from coat.trainer.data.samples import BadSample, RawSample, Sample
from coat.trainer.data.shard_reading import read_shard_or_lost
from coat.trainer.data.usable import within_budget
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.students.unusable import UnusableInput

Told = Callable[[int], None]  # so many samples are done


@dataclass(frozen=True)
class ReadSettings:
    layers: str = "all"
    places: Sequence[str] = ()
    by_position: Sequence[str] = ()
    clips: int | None = None
    batch_size: int = 16
    batch_tokens: int = 16384
    device: str | None = None
    rank: int = 0  # of so many that share the units, and the cache
    ranks: int = 1


@dataclass(frozen=True)
class Read:
    """The states of a subject, all of them in the cache."""

    subject: Subject
    states: StatesSet
    units: Sequence[Unit]
    layers: tuple[int, ...]  # that were asked for
    count: int  # layers that the student has

    def check_whole(self) -> None:
        """RunError where a unit is not there that another rank has read."""
        if lacking := self.states.lacking(self.units):
            raise RunError(
                f"--cache: {len(lacking)} units of other ranks are not there; give a folder that all ranks see"
            )

    def skipped(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for unit in self.units:
            total.update(self.states.skipped(unit))
        return total


def read_subject(subject: Subject, index: ShardIndex, cache: str, settings: ReadSettings, told: Told) -> Read:
    """The model is loaded only where a unit of this rank is not in the cache. Ranks wait for each other behind it."""
    units, model, config = units_of(index, settings.clips), None, None
    facts = subject_facts(cache, subject)
    if facts is None:
        model, config = subject.load(settings.device)
        facts = {"dim": model.student.hidden_size, "layers": len(decoder_layers(model.student))}
        keep_facts(cache, subject, **facts)
    layers = layer_numbers(settings.layers, facts["layers"])
    states = StatesSet(cache, subject, index, facts["dim"], layers, settings.places, settings.by_position)
    own = units[settings.rank :: settings.ranks]  # whatever the others have done by now
    missing = [unit for unit in own if not states.has(unit)]
    told(sum(unit.stop - unit.first for unit in own if unit not in missing))
    if missing:
        if model is None or config is None:
            model, config = subject.load(settings.device)
        Reader(model, config, index, states, settings, told).read(missing)
    return Read(subject, states, units, layers, facts["layers"])


@dataclass
class Reader:
    model: CoatModel
    config: TrainConfig
    index: ShardIndex
    states: StatesSet
    settings: ReadSettings
    told: Told

    def __post_init__(self) -> None:
        # With all experts: whether a sample is used does not depend on which of them are probed.
        self.collator = Collator(self.model.student, self.model.block, self.index, list(self.index.experts))

    def read(self, units: Sequence[Unit]) -> None:
        shards = {shard.name: shard for shard in self.index.shards}
        for name, of_shard in groupby(units, lambda unit: unit.shard):
            numbered, at = enumerate(read_shard_or_lost(self.index, shards[name])), 0
            for unit in of_shard:  # in the order of the tar; what lies between them is in the cache
                skipped: Counter[str] = Counter()
                samples = islice(numbered, unit.first - at, unit.stop - at)
                self.states.write(unit, self.blocks(samples, skipped), skipped)
                at = unit.stop

    def blocks(self, samples: Iterator[tuple[int, RawSample]], skipped: Counter[str]) -> Iterator[Block]:
        """`skipped` counts by reason. Batches are those of the unit alone: a kill does not change them."""
        block, size, budget = Block(), self.settings.batch_size, self.settings.batch_tokens
        usable = self.usable(samples, skipped)
        for batch in within_budget(usable, size, budget, lambda item: len(item[1].ids)):
            self.add(block, batch)
            if block.nbytes >= BLOCK_BYTES:
                yield block
                block = Block()
        if block.keys:
            yield block

    def usable(
        self, samples: Iterator[tuple[int, RawSample]], skipped: Counter[str]
    ) -> Iterator[tuple[str, EncodedSample, str]]:
        """Key, sequence and group of those that the student can take whole, and that have audio."""
        for number, raw in samples:
            try:
                sample = decode_sample(raw, self.index, self.collator.experts)
                if sample.text_only:
                    raise BadSample("text_only", f"{sample.id}: has no audio")
                whole = self.collator.encode(sample, self.config.data)
                encoded = replace(whole, ids=whole.ids[: whole.response], targets={})  # the answer is not read
                yield key_of(raw.shard, number), encoded, group_of(raw, sample)
            except (BadSample, UnusableInput) as why:
                skipped[why.reason] += 1
            self.told(1)

    def add(self, block: Block, batch: Sequence[tuple[str, EncodedSample, str]]) -> None:
        encoded = [one for _, one, _ in batch]
        collated = self.collator.collate(encoded).to(self.model.student.model.device)
        positions = [
            {place: found for place, found in positions_of(self.model.student, self.model.block, one).items()
             if place in self.states.places} for one in encoded
        ]  # fmt: skip
        try:
            found = read_places(self.model, collated.inputs, positions, self.states.layers, self.settings.by_position)
        except torch.OutOfMemoryError as e:
            torch.cuda.empty_cache()
            longest = max(len(one.ids) for one in encoded)
            raise RunError(
                f"out of memory with {len(batch)} sequences of up to {longest} positions; the same command with a "
                "smaller --batch-tokens goes on"
            ) from e
        for (key, one, group), at in zip(batch, positions, strict=True):
            block.keys.append(key)
            block.groups.append(group)
            block.seconds.append(one.seconds)
            for place, where in at.items():
                rows = len(where) if place in self.settings.by_position else min(len(where), 1)
                block.rows.setdefault(place, []).append(rows)
        for place_layer, states_ND in found.items():
            block.states.setdefault(place_layer, []).append(states_ND)


def group_of(raw: RawSample, sample: Sample) -> str:
    """Samples of one sound, and pieces of one utterance, belong together."""
    utterance = decode_meta(raw).get("utterance")
    if isinstance(utterance, str):
        return f"utterance {utterance}"
    return xxhash.xxh3_128_hexdigest(sample.samples_S.tobytes() + str(sample.sample_rate).encode())
