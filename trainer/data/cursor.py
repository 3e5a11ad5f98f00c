"""Where in the data a run is: what a checkpoint holds of each rank, as readable JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StreamCursor:
    """The sample that comes next. `identity` is a digest of everything that decides the order."""

    epoch: int
    position: int  # in the epoch, of this rank
    identity: str


@dataclass(frozen=True)
class LoaderCursor:
    """The batch that comes next: number `batch` of the window that begins at `stream` (0 where none is cut up)."""

    stream: StreamCursor
    batch: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)  # samples left out so far, by reason

    def to_dict(self) -> dict[str, Any]:
        where = {"epoch": self.stream.epoch, "position": self.stream.position, "identity": self.stream.identity}
        return {**where, "batch": self.batch, "skipped": dict(self.skipped)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LoaderCursor":
        stream = StreamCursor(data["epoch"], data["position"], data["identity"])
        return cls(stream, data.get("batch", 0), data.get("skipped", {}))
