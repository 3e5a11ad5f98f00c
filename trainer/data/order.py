"""Which samples a rank has in an epoch, and in which order its tars come: a function of (seed, epoch) alone."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.manifests import ShardIndex

# First of every seed here. numpy takes 0 and [0, 0, 0] for one seed: without it, epoch 0 of seed 0 would undo the
# permutation that `build-shards` made with its seed 0.
SEED_PREFIX = 0xC0A7

Left = Mapping[int, NDArray[np.bool_]]  # by epoch: of each sample of the set, whether it is still to come there


class ShardOrder:
    """In epoch e the shards are permuted by (seed, e) and dealt to the ranks.

    Of an epoch in `left`, only the samples that are left there: the ranks were others when it began, or the shards.
    """

    def __init__(self, index: ShardIndex, seed: Sequence[int], rank: int, ranks: int, left: Left | None = None) -> None:
        self.index, self.seed, self.rank, self.ranks = index, tuple(seed), rank, ranks
        self.left: dict[int, NDArray[np.bool_]] = dict(left or {})
        self.firsts: list[int] = [0, *accumulate(s.samples for s in index.shards)]
        self.dealt = lru_cache(2)(self.deal)

    @property
    def ranks_key(self) -> tuple[int, int]:
        return self.rank, self.ranks

    def deal(self, epoch: int) -> list[tuple[int, NDArray[np.int64]]]:
        """This rank's shards in their order: the shard's number, and its samples' numbers in the set."""
        order = np.random.default_rng([SEED_PREFIX, *self.seed, epoch]).permutation(len(self.index.shards)).tolist()
        if epoch not in self.left:
            return [(n, np.arange(self.firsts[n], self.firsts[n + 1])) for n in order[self.rank :: self.ranks]]
        found = [
            (n, self.firsts[n] + self.left[epoch][self.firsts[n] : self.firsts[n + 1]].nonzero()[0]) for n in order
        ]
        return [(n, numbers) for n, numbers in found if len(numbers)][self.rank :: self.ranks]

    def count(self, epoch: int) -> int:
        return sum(len(numbers) for _, numbers in self.dealt(epoch))

    def numbers(self, epoch: int) -> NDArray[np.int64]:
        """Of this rank's samples, in the order of its tars."""
        return np.concatenate([np.zeros(0, np.int64), *(numbers for _, numbers in self.dealt(epoch))])

    def random(self, epoch: int, window: int, *use: int) -> np.random.Generator:
        """Random numbers of one window of this rank, for one use."""
        return np.random.default_rng([SEED_PREFIX, *self.seed, epoch, self.rank, window, *use])

    def permutation(self, epoch: int, window: int, length: int) -> NDArray[np.int64]:
        """In which order the samples of a window are given."""
        return self.random(epoch, window).permutation(length)


def left_digest(left: NDArray[np.bool_]) -> str:
    return xxhash.xxh3_128_hexdigest(np.packbits(left).tobytes())
