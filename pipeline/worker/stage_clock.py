"""Seconds that a unit spends by stage."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar


@dataclass
class Clock:
    """Seconds by stage, of one unit. Waiting for audio is what prefetching failed to hide."""

    decode: float = 0.0
    wait: float = 0.0
    forward: float = 0.0
    write: float = 0.0
    padded_audio: float = 0.0
    heard_audio: float = 0.0
    started: float = field(default_factory=time.perf_counter)


Item = TypeVar("Item")


def timed(items: Iterable[Item], clock: Clock) -> Iterator[Item]:
    """The same items; what it took to get each counts as waiting."""
    iterator = iter(items)
    while True:
        started = time.perf_counter()
        item = next(iterator, None)
        clock.wait += time.perf_counter() - started
        if item is None:
            return
        yield item
