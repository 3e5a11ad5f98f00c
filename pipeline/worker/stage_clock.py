"""Seconds that a unit spends by stage."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from coat.pipeline.decoding.decoded_row import DecodeCost


@dataclass
class StageClock:
    """Seconds that one unit spent by stage, and seconds of audio. Waiting for audio: what prefetching did not hide."""

    wait: float = 0.0
    forward: float = 0.0
    write: float = 0.0
    padded_audio: float = 0.0
    unpadded_audio: float = 0.0
    cost: DecodeCost = field(default_factory=DecodeCost)
    started: float = field(default_factory=time.perf_counter)


Item = TypeVar("Item")


def timed(items: Iterable[Item], clock: StageClock) -> Iterator[Item]:
    """The same items; what it took to get each counts as waiting."""
    iterator = iter(items)
    while True:
        started = time.perf_counter()
        item = next(iterator, None)
        clock.wait += time.perf_counter() - started
        if item is None:
            return
        yield item
