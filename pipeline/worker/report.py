"""What became of a unit: its rows in numbers, and seconds by stage."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from coat.pipeline.store.rows import Row


@dataclass(frozen=True)
class UnitReport:
    """What became of a unit; features stay in the store."""

    unit: str
    expert: str = ""  # as the run calls it
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    frames: int = 0
    bytes: int = 0
    audio_seconds: float = 0.0
    unit_seconds: float = 0.0  # from taking the unit in hand to its commit
    decode_seconds: float = 0.0  # of all decoding threads together
    clips: int = 0  # decoded for this unit
    requests: int = 0  # audio files opened, objects fetched, for this unit
    saved_seconds: float = 0.0  # of decoding, where another expert of the run had the audio before (--share-decode)
    saved_clips: int = 0
    saved_requests: int = 0
    wait_seconds: float = 0.0  # of the expert, for audio
    forward_seconds: float = 0.0
    write_seconds: float = 0.0
    padded_seconds: float = 0.0
    halvings: int = 0  # of the batch budget, for want of memory
    batch_seconds: float | None = None  # padded audio that a pass may hold since memory ran out; None: it did not
    errors: tuple[str, ...] = ()  # "id: reason: message", the first few
    worker: str = ""  # host and process
    reasons: Mapping[str, int] = field(default_factory=dict)  # of failed rows, all of them
    witnesses: tuple[str, ...] = ()  # files that were read well: where one of them is gone, so is its share

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage; stages overlap, so that they may sum to more than the unit took."""
        seconds = {"decode": self.decode_seconds, "wait": self.wait_seconds}
        return seconds | {"forward": self.forward_seconds, "write": self.write_seconds}

    @classmethod
    def of_failed(cls, unit: str, expert: str, rows: Sequence[Row]) -> "UnitReport":
        """Of rows that no expert could be given."""
        errors = tuple(f"{r.id}: {r.error}" for r in rows)
        return cls(unit, expert, failed=len(rows), errors=errors, reasons=failed_reasons(rows))


def failed_reasons(rows: Iterable[Row]) -> dict[str, int]:
    return dict(Counter(r.reason or "" for r in rows if r.status == "failed"))
