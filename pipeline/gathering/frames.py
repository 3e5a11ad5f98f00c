"""Frames of many rows, read unit by unit. N frames, D dim."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.gathering.spool import Spool
from coat.pipeline.store.layout import FRAMES
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_reader import UnitFrames

READERS = 16  # units read at once: an object store answers slowly, but many at once
IN_FLIGHT_BYTES = 256 * 2**20  # of frames that are being read


@dataclass(frozen=True)
class Source:
    """One target set: what it takes to find frames in it, small enough to send anywhere.

    `unit_frames`: how many frames each unit has, of those that are wanted.
    """

    targets: TargetSet
    unit_frames: Mapping[str, int]

    @classmethod
    def of(cls, targets: TargetSet, units: Iterable[str], unit_frames: Mapping[str, int]) -> "Source":
        chosen, own = list(units), TargetSet(targets.url, targets.spec)
        if not storage.is_local(targets.url):
            own.writers = {unit: targets.writer(unit) for unit in chosen}
        return cls(own, {unit: unit_frames[unit] for unit in chosen})

    @property
    def spec(self) -> TargetSpec:
        return self.targets.spec

    def unit(self, name: str) -> UnitFrames:
        return UnitFrames.of(self.targets.unit_url(name, FRAMES), self.unit_frames[name], self.spec)


@dataclass(frozen=True)
class Place:
    """Where the frames of a row begin, in what `read(start, stop)` reads."""

    read: Callable[[int, int], bytes]
    start: int


class GatheredFrames:
    """Frames of rows of several target sets, by name of the set."""

    def __init__(self, sources: Mapping[str, Source], spool: Spool) -> None:
        self.sources, self.spool = sources, spool
        self.places: dict[tuple[str, str, int], Place] = {}  # by set, unit, first frame

    def gather(self, rows: Iterable[tuple[str, Row]]) -> None:
        """Read the frames of rows, given with the name of their set. RunError where a unit was damaged."""
        wanted: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)  # frames by the first one
        for name, row in rows:
            if row.frames:
                wanted[name, row.unit][row.first] = row.frames
        self.gather_spans(wanted)

    def gather_spans(self, wanted: Mapping[tuple[str, str], Mapping[int, int]]) -> None:
        """The same, of spans (first frame: frames) by set and unit."""
        pending: dict[Future[None], int] = {}
        with ThreadPoolExecutor(READERS) as pool:
            for (name, unit), spans in wanted.items():
                nbytes = sum(spans.values()) * self.frame_bytes(name)
                while pending and (len(pending) >= READERS or sum(pending.values()) + nbytes > IN_FLIGHT_BYTES):
                    take_finished(pending)
                pending[pool.submit(self.read_unit, name, unit, spans)] = nbytes
            while pending:
                take_finished(pending)

    def read_unit(self, name: str, unit: str, spans: Mapping[int, int]) -> None:
        found = self.sources[name].unit(unit).read(list(spans.items()))
        for first, frames_ND in zip(spans, found, strict=True):
            at = self.spool.put(np.ascontiguousarray(frames_ND).reshape(-1).view(np.uint8).data)
            self.places[name, unit, first] = Place(self.spool.read, at)

    def frames(self, name: str, row: Row, first: int, stop: int) -> NDArray[Any]:
        """`[stop - first, D]` of a row that was gathered, counted from its own first frame."""
        spec = self.sources[name].spec
        if stop <= first:
            return np.zeros((0, spec.dim), spec.dtype)
        data = self.span_bytes(name, row.unit, row.first, first, stop)
        return np.frombuffer(data, np.dtype(spec.dtype).newbyteorder("<")).reshape(-1, spec.dim)

    def span_bytes(self, name: str, unit: str, row_first: int, first: int, stop: int) -> bytes:
        """Of the row that begins at frame `row_first` of its unit."""
        place, size = self.places[name, unit, row_first], self.frame_bytes(name)
        data = place.read(place.start + first * size, place.start + stop * size)
        assert len(data) == (stop - first) * size, (unit, row_first, first, stop, len(data))
        return data

    def frame_bytes(self, name: str) -> int:
        spec = self.sources[name].spec
        return spec.dim * np.dtype(spec.dtype).itemsize


def take_finished(pending: dict[Future[None], int]) -> None:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        del pending[future]
        future.result()
