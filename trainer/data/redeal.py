"""An epoch that goes on with other ranks or other shards: what is left is dealt anew, and no sample comes twice."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.trainer.data.cursor import LoaderCursor, StreamCursor, cursors_of
from coat.trainer.data.order import Left
from coat.trainer.data.sample_record import SampleRecord
from coat.trainer.data.stream import ShardStream

Numbers = NDArray[np.int64]  # of samples in a set, in the order of its index


@dataclass(frozen=True)
class Remainder:
    """Of one set: the epoch that goes on first, and what is left of the epochs that some rank had begun."""

    epoch: int
    left: Left

    def samples(self) -> int:
        """That are left of the first epoch; 0: it begins anew."""
        return int(self.left[self.epoch].sum()) if self.epoch in self.left else 0


def set_cursors(cursor: LoaderCursor) -> dict[str, StreamCursor]:
    """Of each set, behind what was read: with `window.left` all that is still to come."""
    return cursors_of(cursor.window.end if cursor.window else cursor.stream)


def remainder(name: str, cursors: Sequence[LoaderCursor], streams: Sequence[ShardStream]) -> Remainder:
    """What the ranks have not been given of a set. `streams` are theirs: of the shards and ranks of then.

    A rank that is an epoch ahead has had all of its part of the epochs before.
    """
    size = streams[0].index.samples
    unseen: list[tuple[int, dict[int, Numbers]]] = []  # by rank: its epoch, and what is left, also of epochs before
    for cursor, stream in zip(cursors, streams, strict=True):
        place = set_cursors(cursor)[name]
        left = dict(stream.unseen(place))
        for held in cursor.window.left if cursor.window else ():
            if held.data_set == name:
                left[held.epoch] = np.append(left.get(held.epoch, np.zeros(0, np.int64)), held.number)
        unseen.append((place.epoch, left))
    dealt_anew = {epoch for stream in streams for epoch in stream.order.left}  # already once, and not begun since
    last = max([*(epoch for epoch, _ in unseen), *dealt_anew])
    begun = [
        epoch for reached, left in unseen for epoch in (reached, *(e for e, numbers in left.items() if len(numbers)))
    ]
    found: dict[int, NDArray[np.bool_]] = {}
    for epoch in range(min(begun), last + 1):
        mask = np.zeros(size, bool)
        for (reached, left), stream in zip(unseen, streams, strict=True):
            mask[left.get(epoch, stream.order.numbers(epoch) if epoch > reached else np.zeros(0, np.int64))] = True
        if not mask.all():
            found[epoch] = mask
    whole = np.ones(size, bool)
    first = next((e for e in range(min(begun), last) if found.get(e, whole).any()), last)
    found = {epoch: mask for epoch, mask in found.items() if epoch >= first}
    return Remainder(first, found)


def carry_over(rest: Remainder, then: SampleRecord, now: SampleRecord) -> tuple[Remainder, dict[str, int]]:
    """The same for shards that lost or gained samples; what is new is still to come. Counts: same, lost, new."""
    where = np.argsort(then.samples, kind="stable")
    place = np.searchsorted(then.samples, now.samples, sorter=where).clip(max=len(where) - 1)
    match = where[place]
    known = then.samples[match] == now.samples
    left = {epoch: np.where(known, mask[match], True) for epoch, mask in rest.left.items()}
    counts = {"same": int(known.sum()), "lost": len(then.samples) - int(known.sum()), "new": int((~known).sum())}
    return Remainder(rest.epoch, left), counts


def begin_at(stream: ShardStream, epoch: int) -> None:
    stream.close()
    stream.begin(epoch)


def sum_counts(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of all ranks."""
    return dict(sum(map(Counter, counts), Counter[str]()))
