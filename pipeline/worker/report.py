"""What became of a unit: its rows in numbers, and seconds by stage."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from coat.pipeline.store.rows import Row


@dataclass(frozen=True)
class Report:
    """What became of a unit; features stay in the store."""

    unit: str
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    frames: int = 0
    bytes: int = 0
    audio_seconds: float = 0.0
    unit_seconds: float = 0.0  # from taking the unit in hand to its commit
    decode_seconds: float = 0.0  # of all decoding threads together
    wait_seconds: float = 0.0  # of the expert, for audio
    forward_seconds: float = 0.0
    write_seconds: float = 0.0
    padded_seconds: float = 0.0
    halvings: int = 0  # of the batch budget, for want of memory
    errors: tuple[str, ...] = ()  # "id: reason: message", the first few
    worker: str = ""  # host and process
    reasons: Mapping[str, int] = field(default_factory=dict)  # of failed rows, all of them

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage; stages overlap, so that they may sum to more than the unit took."""
        seconds = {"decode": self.decode_seconds, "wait": self.wait_seconds}
        return seconds | {"forward": self.forward_seconds, "write": self.write_seconds}

    @classmethod
    def of_failed(cls, unit: str, rows: Sequence[Row]) -> "Report":
        """Of rows that no expert could be given."""
        errors = tuple(f"{r.id}: {r.error}" for r in rows)
        return cls(unit, failed=len(rows), errors=errors, reasons=failed_reasons(rows))


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


def failed_reasons(rows: Iterable[Row]) -> dict[str, int]:
    return dict(Counter(r.reason or "" for r in rows if r.status == "failed"))


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
