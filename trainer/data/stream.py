"""Shards in: plain WebDataset tars, read in an order that is a function of (seed, epoch, position) alone."""

import json
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import count, islice

import numpy as np
import xxhash

from coat.manifests import BrokenShard, InputError, RunError, ShardIndex, ShardInfo
from coat.manifests.shards.reading import read_samples
from coat.trainer.data.cursor import StreamCursor
from coat.trainer.data.decoding import decode_sample
from coat.trainer.data.samples import RawSample, Sample

# First of every seed here. numpy takes 0 and [0, 0, 0] for one seed: without it, epoch 0 of seed 0 would undo the
# permutation that `build-shards` made with its seed 0.
SEED_PREFIX = 0xC0A7


def iterate_shards(path: str) -> Iterator[Sample]:
    """Every sample of a shard set once, decoded, in the order of its tars.

    InputError: no index in `path`, or a shard that is not what the index says.
    """
    index = ShardIndex.read(path)
    for shard in index.shards:
        for raw in read_shard(index, shard):
            yield decode_sample(raw, index)


def read_shard(index: ShardIndex, shard: ShardInfo, experts: Collection[str] | None = None) -> Iterator[RawSample]:
    """The samples of one tar with their sidecars (of these experts; None: all), not decoded. InputError where it is
    missing, broken (BrokenShard) or not what the index says.
    """
    for sample in read_samples(index, shard, experts):
        yield RawSample(shard.name, sample.key, sample.members)


def read_shard_or_lost(
    index: ShardIndex, shard: ShardInfo, experts: Collection[str] | None = None
) -> Iterator[RawSample]:
    """As many samples as the index says, the last of them lost where a tar is cut or broken.

    InputError where it gives none at all, or where it is not what the index says.
    """
    found = 0
    try:
        for raw in read_shard(index, shard, experts):
            found += 1
            yield raw
    except BrokenShard as e:
        if found == 0:
            raise
        for number in range(found, shard.samples):
            yield RawSample(shard.name, f"sample {number}", {}, lost=str(e))


class ShardStream:
    """Raw samples of one rank, epoch after epoch without end, from any position.

    In epoch e the shards are permuted by (seed, e) and dealt to the ranks; a rank's samples are cut into
    windows of `shuffle`, each permuted by (seed, e, rank, window). So (epoch, position) is the whole state: to go
    on, the shards before it are not opened, and at most one window and the start of one shard are read again.
    Samples that a broken tar does not give are `lost`, but keep their positions. Sidecars are read of `experts` alone.
    """

    def __init__(
        self,
        index: ShardIndex,
        *,
        seed: int,
        shuffle: int,
        rank: int = 0,
        ranks: int = 1,
        experts: Collection[str] | None = None,
    ) -> None:
        if len(index.shards) < ranks:
            raise InputError(
                f"{index.path}: {len(index.shards)} shards for {ranks} ranks; build smaller shards "
                "(`coat build-shards --shard-size`), or use fewer ranks"
            )
        self.index, self.seed, self.shuffle, self.rank, self.ranks = index, seed, shuffle, rank, ranks
        self.experts = experts
        self.epoch, self.position = 0, 0  # of the sample that comes next
        self.samples: Iterator[RawSample] | None = None
        self.stopped = False  # set from another thread: nothing more is read

    def __iter__(self) -> Iterator[RawSample]:
        return self

    def __next__(self) -> RawSample:
        if self.samples is None:
            self.samples = self.read_epoch(self.epoch, self.position)
        sample = next(self.samples, None)
        if sample is None:
            if self.position == 0:
                raise RunError(f"{self.index.path}: no samples for rank {self.rank}")
            self.epoch, self.position = self.epoch + 1, 0
            self.samples = None
            return next(self)
        self.position += 1
        return sample

    def next_window(self) -> list[RawSample]:
        """The next samples, up to the end of their window; never of two epochs."""
        first = next(self)
        last = min(-(-self.position // self.shuffle) * self.shuffle, sum(s.samples for s in self.shards_of(self.epoch)))
        return [first, *islice(self, last - self.position)]

    def random(self, epoch: int, window: int, *use: int) -> np.random.Generator:
        """Random numbers of one window of this rank, for one use."""
        return np.random.default_rng([SEED_PREFIX, self.seed, epoch, self.rank, window, *use])

    def shards_of(self, epoch: int) -> list[ShardInfo]:
        order = np.random.default_rng([SEED_PREFIX, self.seed, epoch]).permutation(len(self.index.shards))
        return [self.index.shards[i] for i in order[self.rank :: self.ranks]]

    def read_epoch(self, epoch: int, position: int) -> Iterator[RawSample]:
        """The epoch's samples as they are given, without the first `position`."""
        first = position // self.shuffle
        in_tar_order = self.read_from(epoch, first * self.shuffle)
        for number in count(first):
            window = list(islice(in_tar_order, self.shuffle))
            if not window:
                return
            order = self.random(epoch, number).permutation(len(window))
            skip = position - number * self.shuffle if number == first else 0
            yield from (window[i] for i in order[skip:])

    def read_from(self, epoch: int, skip: int) -> Iterator[RawSample]:
        """The epoch's samples in the order of its tars, without the first `skip`."""
        for shard in self.shards_of(epoch):
            if skip >= shard.samples:
                skip -= shard.samples
                continue
            for sample in islice(read_shard_or_lost(self.index, shard, self.experts), skip, None):
                if self.stopped:
                    return
                yield sample
            skip = 0

    @cached_property
    def identity(self) -> str:
        """Of everything that decides the order; a cursor is of use only where this is equal. Ten thousand shards take
        some milliseconds, and each batch asks.
        """
        shards = [(s.name, s.samples, s.xxh3) for s in self.index.shards]
        data = [SEED_PREFIX, shards, self.seed, self.shuffle, self.rank, self.ranks]
        return xxhash.xxh3_64_hexdigest(json.dumps(data).encode())

    @property
    def cursor(self) -> StreamCursor:
        return StreamCursor(self.epoch, self.position, self.identity)

    def seek(self, cursor: StreamCursor) -> None:
        """Go on from there. InputError where the order would be another."""
        if cursor.identity != self.identity:
            raise InputError(
                f"{self.index.path}: the shards, their order or the number of ranks changed since this run stopped; "
                "resume with the same, or use another --out"
            )
        self.epoch, self.position, self.samples = cursor.epoch, cursor.position, None
