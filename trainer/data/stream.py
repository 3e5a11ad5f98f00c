"""Samples of one shard set without end, in an order that is a function of (seed, epoch, position) alone."""

import json
from collections.abc import Callable, Collection, Generator, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import count, islice

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.manifests import InputError, RunError, ShardIndex
from coat.trainer.config.sections import ONE_SET
from coat.trainer.data.cursor import Cursor, StreamCursor, WindowPlace
from coat.trainer.data.order import SEED_PREFIX, Left, ShardOrder, left_digest
from coat.trainer.data.samples import Place, RawSample
from coat.trainer.data.shard_reading import AHEAD_BYTES, read_ahead, read_shard_or_lost

BATCH_ORDER = 1  # use of a window's random numbers
SHUFFLE_BYTES = 2**30  # of a window, where the config does not say


@dataclass(frozen=True)
class Window:
    """Samples that are cut into batches together, and the random numbers that permute these batches."""

    samples: list[RawSample]
    random: np.random.Generator


class ShardStream:
    """Raw samples of one rank, epoch after epoch without end, from any position.

    In epoch e the shards are permuted by (seed, e) and dealt to the ranks (`ShardOrder`); a rank's samples are cut into
    windows of `shuffle` samples or `shuffle_bytes`, whichever is less, each permuted by (seed, e, rank, window). So
    epoch, position and the window's start are the whole state: to go on, the shards before it are not opened, and at
    most one window and the start of one shard are read again. Samples that a broken tar does not give are `lost`, but
    keep their positions. Sidecars are read of `experts` alone.
    """

    def __init__(
        self,
        index: ShardIndex,
        *,
        seed: int,
        shuffle: int,
        shuffle_bytes: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        experts: Collection[str] | None = None,
        name: str = ONE_SET,
        left: Left | None = None,
        ahead: tuple[int, int] = (1, AHEAD_BYTES),
    ) -> None:
        if len(index.shards) < ranks:
            raise InputError(
                f"{index.path}: {len(index.shards)} shards for {ranks} ranks; build smaller shards "
                "(`coat build-shards --shard-size`), or use fewer ranks"
            )
        self.index, self.shuffle, self.shuffle_bytes, self.experts, self.name = (
            index, shuffle, shuffle_bytes, experts, name,
        )  # fmt: skip
        self.seed = seed
        key = (
            [] if name == ONE_SET else [xxhash.xxh3_64_intdigest(name.encode())]
        )  # sets of equal tars are not read in step
        self.order = ShardOrder(index, [seed, *key], rank, ranks, left)
        self.ahead = ahead  # tars that are read at a time, bytes of each
        self.max_bytes: int | None = shuffle_bytes or SHUFFLE_BYTES
        self.epoch, self.window, self.start, self.length, self.given = 0, 0, 0, 0, 0
        self.held: list[RawSample] = []  # of the window, last first
        self.reader: Generator[RawSample] | None = None

    def __iter__(self) -> Iterator[RawSample]:
        return self

    def __next__(self) -> RawSample:
        if not self.held:
            self.read_window()
        self.given += 1
        sample = self.held.pop()
        if not self.held:
            self.window, self.start, self.length, self.given = self.window + 1, self.start + self.length, 0, 0
            if self.start == self.order.count(self.epoch):
                self.epoch, self.window, self.start = self.epoch + 1, 0, 0
        return sample

    def next_window(self, length: int = 0) -> Window:
        """The next samples, up to the end of their window; never of two epochs. `length`: of the window, if known."""
        if not self.held:
            self.length = self.length or length
            self.read_window()
        random = self.order.random(self.epoch, self.window, BATCH_ORDER)
        return Window([next(self) for _ in range(len(self.held))], random)

    def read_window(self) -> None:
        """Hold what is left of the window at the cursor."""
        while not self.order.count(self.epoch) - self.start:
            if self.epoch not in self.order.left:
                raise RunError(f"{self.index.path}: no samples for rank {self.order.rank}")
            self.epoch, self.window, self.start = self.epoch + 1, 0, 0
        if self.reader is None:
            self.reader = self.in_tar_order(self.epoch, self.start)
        samples = self.take_window(self.reader, self.order.count(self.epoch) - self.start)
        self.length = len(samples)
        order = self.order.permutation(self.epoch, self.window, len(samples))
        self.held = [samples[i] for i in reversed(order[self.given :])]

    def take_window(self, samples: Iterator[RawSample], most: int) -> list[RawSample]:
        if self.length:
            return list(islice(samples, self.length))
        window: list[RawSample] = []
        size = 0
        while len(window) < min(self.shuffle, most) and (self.max_bytes is None or size < self.max_bytes):
            window.append(next(samples))
            size += window[-1].bytes
        return window

    def in_tar_order(self, epoch: int, skip: int) -> Generator[RawSample]:
        """The samples in the order of the tars, from position `skip` of an epoch on, without end."""
        return read_ahead(self.tars(epoch, skip), *self.ahead)

    def tars(self, epoch: int, skip: int) -> Iterator[Callable[[], Generator[RawSample]]]:
        for now in count(epoch):
            for shard, numbers in self.order.dealt(now):
                if skip >= len(numbers):
                    skip -= len(numbers)
                    continue
                yield partial(self.read_tar, now, shard, numbers[skip:])
                skip = 0

    def read_tar(self, epoch: int, shard: int, numbers: NDArray[np.int64]) -> Generator[RawSample]:
        """Those of a tar's samples that have these numbers in the set."""
        first = self.order.firsts[shard]
        wanted = iter(numbers.tolist())
        next_number = next(wanted)
        samples = read_shard_or_lost(self.index, self.index.shards[shard], self.experts)
        for number, sample in enumerate(samples, first):
            if number == next_number:
                yield replace(sample, place=Place(self.name, epoch, number))
                next_number = next(wanted, -1)

    def read_epoch(self, epoch: int, position: int = 0) -> Iterator[RawSample]:
        """The samples of an epoch as they are given, without the first `position`; the stream itself stays."""
        stream = self.fork()
        stream.begin(epoch)
        samples = islice(stream, position, self.order.count(epoch))
        try:
            yield from samples
        finally:
            stream.close()

    def begin(self, epoch: int) -> None:
        """Stand before the first sample of an epoch."""
        self.epoch, self.window, self.start, self.length, self.given = epoch, 0, 0, 0, 0

    def fork(self) -> "ShardStream":
        """A stream of its own, at the same place."""
        other = copy(self)
        other.held, other.reader = [], None
        return other

    def close(self) -> None:
        """End the threads that read ahead."""
        if self.reader is not None:
            self.reader.close()
        self.held, self.reader = [], None

    @cached_property
    def identity(self) -> str:
        """Of everything that decides the order; a cursor is of use only where this is equal. Ten thousand shards take
        some milliseconds, and each batch asks.
        """
        return self.digest([*self.order.seed, *self.order.ranks_key])

    def digest(self, rest: list[int]) -> str:
        shards = [(s.name, s.samples, s.xxh3) for s in self.index.shards]
        return xxhash.xxh3_64_hexdigest(json.dumps([SEED_PREFIX, shards, *rest]).encode())

    @cached_property
    def left_digests(self) -> dict[int, str]:
        return {epoch: left_digest(left) for epoch, left in self.order.left.items()}

    @cached_property
    def data_identity(self) -> str:
        return self.index.identity

    @property
    def cursor(self) -> StreamCursor:
        window = WindowPlace(self.window, self.start, self.length if self.given else 0, self.max_bytes)
        left = {epoch: digest for epoch, digest in self.left_digests.items() if epoch >= self.epoch}
        return StreamCursor(self.epoch, self.start + self.given, self.identity, window, self.data_identity, left)

    def seek(self, cursor: Cursor) -> None:
        """Go on from there. InputError where the order would be another."""
        assert isinstance(cursor, StreamCursor)
        if not self.goes_on_from(cursor):
            raise InputError(
                f"{self.index.path}: the shards, their order or the number of ranks changed since this run stopped; "
                "resume with the same, or use another --out"
            )
        self.close()
        window = cursor.window or self.window_of_before(cursor)
        self.epoch, self.window, self.start = cursor.epoch, window.number, window.start
        self.length, self.given = window.length, cursor.position - window.start
        if self.shuffle_bytes is None:
            self.max_bytes = window.max_bytes
        if cursor.position and cursor.position == self.order.count(cursor.epoch):
            self.begin(cursor.epoch + 1)

    def goes_on_from(self, cursor: StreamCursor) -> bool:
        """Whether a cursor is one of this very order."""
        if cursor.window is None and cursor.identity == self.digest([self.seed, self.shuffle, *self.order.ranks_key]):
            return not self.left_digests
        left = {epoch: digest for epoch, digest in self.left_digests.items() if epoch >= cursor.epoch}
        return cursor.identity == self.identity and left == dict(cursor.left)

    def window_of_before(self, cursor: StreamCursor) -> WindowPlace:
        """Of a run that was begun when windows had no budget of bytes: it goes on without one."""
        number, given = divmod(cursor.position, self.shuffle)
        start = number * self.shuffle
        length = min(self.shuffle, self.order.count(cursor.epoch) - start) if given else 0
        return WindowPlace(number, start, length, None)

    def unseen(self, cursor: StreamCursor) -> dict[int, NDArray[np.int64]]:
        """Numbers of this rank's samples that are not given yet, of the cursor's epoch."""
        window = cursor.window or self.window_of_before(cursor)
        numbers = self.order.numbers(cursor.epoch)
        start, end = window.start, window.start + window.length
        order = self.order.permutation(cursor.epoch, window.number, window.length)[cursor.position - start :]
        return {cursor.epoch: np.concatenate([numbers[start:end][order], numbers[end:]])}
