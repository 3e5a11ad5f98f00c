"""Which clips are fitted to and which are tested on, and the shuffling of the control task.

Clips that belong together (questions about one sound, pieces of one recording, or what `--folds-by` names) are a group:
a group lies in one fold, is shuffled and drawn again as a whole. N rows, G groups.
"""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

CONTROL_SEED = 20260


def group_numbers(groups: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """The number of each one's group, in an order that follows from the groups' names alone; and how many there are."""
    names = sorted(set(groups), key=lambda name: (xxhash.xxh3_128_hexdigest(name.encode()), name))
    number = {name: n for n, name in enumerate(names)}
    return np.array([number[group] for group in groups], np.int64), len(names)


def fold_numbers(group_N: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """Groups are dealt out in the order of a hash: as like in size as can be, and the same for every model."""
    return group_N % folds


def shuffled_rows(group_N: NDArray[np.int64], seed: int = CONTROL_SEED) -> NDArray[np.int64]:
    """For each row the row whose target it gets: of another group, drawn by the seed alone, at the like place in it.

    So a group keeps what its rows have in common (a word per clip, a curve over positions), which is what a probe could
    learn by heart; what is gone is what they have to do with the sound.
    """
    order_N = np.argsort(group_N, kind="stable")
    names, first, size = np.unique(group_N[order_N], return_index=True, return_counts=True)
    donor = np.random.default_rng(seed).permutation(len(names))
    own = np.repeat(np.arange(len(names)), size)  # the group of each row, of the rows in order
    place = np.arange(len(group_N)) - first[own]
    taken = first[donor[own]] + place * size[donor[own]] // size[own]
    found_N = np.empty(len(group_N), np.int64)
    found_N[order_N] = order_N[taken]
    return found_N
