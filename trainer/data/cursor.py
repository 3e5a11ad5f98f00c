"""Where in the data a run is: what a checkpoint holds of each rank, as readable JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from coat.trainer.config.sections import ONE_SET
from coat.trainer.data.samples import Place


@dataclass(frozen=True)
class WindowPlace:
    """The window of samples that the cursor is in, or before."""

    number: int  # in the epoch
    start: int  # position of its first sample in the epoch
    length: int  # 0: nothing of it has been given, and it is cut when it is read
    max_bytes: int | None  # of the windows behind it


@dataclass(frozen=True)
class StreamCursor:
    """The sample that comes next of one set. `identity` is a digest of everything that decides the order.

    Runs that were begun before windows had a budget of bytes know no `window`: theirs are all of the same length.
    """

    epoch: int
    position: int  # in the epoch, of this rank
    identity: str
    window: WindowPlace | None = None
    data: str = ""  # ShardIndex.identity of the set
    left: Mapping[int, str] = field(default_factory=dict)  # digests of what is left of epochs that were dealt anew

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "StreamCursor":
        window = data.get("window")
        left = {int(epoch): digest for epoch, digest in data.get("left", {}).items()}
        place = WindowPlace(**window) if window else None
        return cls(data["epoch"], data["position"], data["identity"], place, data.get("data", ""), left)


@dataclass(frozen=True)
class MixtureCursor:
    """Of several sets: how many samples were drawn in all, and where each set is."""

    drawn: int
    sets: Mapping[str, StreamCursor]


Cursor = StreamCursor | MixtureCursor


@dataclass(frozen=True)
class WindowInHand:
    """A window of which some batches were given."""

    batch: int  # number of the one that comes next
    length: int  # samples of the window
    end: Cursor  # behind the window
    left: tuple[Place, ...]  # samples of its batches that were not given


@dataclass(frozen=True)
class LoaderCursor:
    """The batch that comes next: at `stream` or, where windows are cut into batches by length, in one that begins
    there.
    """

    stream: Cursor
    window: WindowInHand | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)  # samples left out so far, by reason
    given: Mapping[str, float] = field(default_factory=dict)  # by set, see `Loader.given`

    @property
    def batch(self) -> int:
        return self.window.batch if self.window else 0

    def to_dict(self) -> dict[str, Any]:
        window = self.window and {
            "batch": self.window.batch,
            "length": self.window.length,
            "end": cursor_dict(self.window.end),
            "left": [[place.data_set, place.epoch, place.number] for place in self.window.left],
        }
        counts = {"skipped": dict(self.skipped), "given": dict(self.given)}
        return {"stream": cursor_dict(self.stream), **({"window": window} if window else {}), **counts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LoaderCursor":
        counts = data.get("skipped", {}), data.get("given", {})
        if "stream" not in data:  # of runs before data sets
            window = WindowInHand(data["batch"], 0, cursor_from(data), ()) if data.get("batch") else None
            return cls(cursor_from(data), window, *counts)
        window = data.get("window")
        if window:
            left = tuple(Place(*place) for place in window["left"])
            window = WindowInHand(window["batch"], window["length"], cursor_from(window["end"]), left)
        return cls(cursor_from(data["stream"]), window, *counts)


def cursors_of(cursor: Cursor) -> dict[str, StreamCursor]:
    """By set; of a single set, under its usual name."""
    return dict(cursor.sets) if isinstance(cursor, MixtureCursor) else {ONE_SET: cursor}


def cursor_dict(cursor: Cursor) -> dict[str, Any]:
    """Without what is empty."""
    if isinstance(cursor, MixtureCursor):
        return {"drawn": cursor.drawn, "sets": {name: cursor_dict(one) for name, one in cursor.sets.items()}}
    return {name: value for name, value in asdict(cursor).items() if value or name in ("epoch", "position")}


def cursor_from(data: Mapping[str, Any]) -> Cursor:
    if "sets" not in data:
        return StreamCursor.from_dict(data)
    return MixtureCursor(data["drawn"], {name: StreamCursor.from_dict(one) for name, one in data["sets"].items()})
