"""Several sets as one stream: which of them the next sample comes from is a function of (seed, how many were drawn)."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from coat.manifests import InputError, ShardIndex
from coat.trainer.data.cursor import Cursor, MixtureCursor
from coat.trainer.data.order import SEED_PREFIX
from coat.trainer.data.samples import RawSample
from coat.trainer.data.stream import BATCH_ORDER, SHUFFLE_BYTES, ShardStream, Window

DRAWN_TOGETHER = 1024  # samples of which each set has its share, to one sample
DRAWS = 2  # use of random numbers; see stream.BATCH_ORDER


class MixedStream:
    """Samples of several streams without end, in shares of their `weights`.

    Each stream has epochs and windows of its own: a set that is drawn more often than its size begins its next epoch
    sooner. Of every 1024 samples each set has its share, to one sample; their order is random by (seed, rank).
    """

    def __init__(
        self,
        streams: Mapping[str, ShardStream],
        weights: Sequence[float],
        index: ShardIndex,
        *,
        seed: int,
        shuffle: int,
        shuffle_bytes: int | None,
        rank: int,
    ) -> None:
        self.streams, self.index = dict(streams), index
        self.names = list(streams)
        self.shares = np.asarray(weights, float) / sum(weights)
        self.seed, self.shuffle, self.rank = seed, shuffle, rank
        self.max_bytes = shuffle_bytes or SHUFFLE_BYTES  # of a window that is cut into batches
        self.drawn = 0
        self.draws = lru_cache(2)(self.draw_block)

    def draw_block(self, block: int) -> NDArray[np.int64]:
        """Of which set each of the block's samples is."""
        random = np.random.default_rng([SEED_PREFIX, self.seed, self.rank, block, DRAWS])
        places = (np.arange(DRAWN_TOGETHER) + random.random()) / DRAWN_TOGETHER
        sets = np.searchsorted(np.cumsum(self.shares)[:-1], places, side="right")
        return random.permutation(sets)

    def __iter__(self) -> Iterator[RawSample]:
        return self

    def __next__(self) -> RawSample:
        block, place = divmod(self.drawn, DRAWN_TOGETHER)
        self.drawn += 1
        return next(self.streams[self.names[self.draws(block)[place]]])

    def next_window(self, length: int = 0) -> Window:
        """As many samples as are permuted together in one set; `length`: so many."""
        random = np.random.default_rng([SEED_PREFIX, self.seed, self.rank, self.drawn, DRAWS, BATCH_ORDER])
        samples: list[RawSample] = []
        size = 0
        while len(samples) < (length or self.shuffle) and (length or size < self.max_bytes):
            samples.append(next(self))
            size += samples[-1].bytes
        return Window(samples, random)

    def fork(self) -> "MixedStream":
        other = copy(self)
        other.streams = {name: stream.fork() for name, stream in self.streams.items()}
        return other

    def close(self) -> None:
        for stream in self.streams.values():
            stream.close()

    @property
    def cursor(self) -> MixtureCursor:
        return MixtureCursor(self.drawn, {name: stream.cursor for name, stream in self.streams.items()})

    def seek(self, cursor: Cursor) -> None:
        """Go on from there; a set that the cursor does not know begins. InputError where an order would be another."""
        if not isinstance(cursor, MixtureCursor):
            raise InputError(f"{self.index.path}: this run was begun with one set of shards; resume with --change")
        self.drawn = cursor.drawn
        for name, stream in self.streams.items():
            if name in cursor.sets:
                stream.seek(cursor.sets[name])


def mixing_weights(weights: Sequence[float | None], samples: Sequence[int], temperature: float) -> list[float]:
    """The weights as given, or samples^(1 / temperature) where none is."""
    return [n ** (1 / temperature) if w is None else w for w, n in zip(weights, samples, strict=True)]
