"""One target set: reading what one expert, with one fingerprint, has committed. N frames, D dim."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError, NoAccess, RunError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.frames_reader import REPAIR_HINT, dask_frames, read_frames
from coat.pipeline.store.layout import DONE, FRAMES, ROWS, SPEC, UNITS
from coat.pipeline.store.outcomes import OUTCOME_COLUMNS, Outcomes, RowsByDigest
from coat.pipeline.store.rows import OK, ROWS_SCHEMA, UNIT_SCHEMA, Row
from coat.pipeline.store.segments import UnitRows, read_segments, unit_rows
from coat.pipeline.store.unit_table import UnitTable

# A done.json without one of these is torn.
DONE_KEYS = {"rows", "frames", "bytes", "xxh3", "rows_xxh3", "array_xxh3", "done_xxh3"}
READ_AHEAD = 512  # units whose tables are read together: bounds the memory
READERS = 16  # small files of a disk are read this many at a time, of an object store storage.REQUESTS
AnyOutcomes = TypeVar("AnyOutcomes", bound=Outcomes)


@dataclass(frozen=True)
class Target:
    """What an expert gave for one utterance. Frame i is centred at `times[i]` seconds from its start."""

    id: str
    frames: NDArray[Any]  # [N, D], in the spec's dtype
    times: NDArray[np.float64]  # [N]
    spec: TargetSpec


class TargetSet:
    """All that one expert, with one fingerprint, has given: a snapshot of the units committed by now."""

    def __init__(self, url: str, spec: TargetSpec) -> None:
        self.url = url
        self.spec = spec
        self.not_indexed: Sequence[str] = ()  # units of no segment, once units or outcomes were read
        self.writers: dict[str, str] = {}  # of units that were read by themselves

    @classmethod
    def open(cls, url: str) -> "TargetSet":
        """Read `url/spec.json`. InputError where it is not there, or does not belong to this folder."""
        spec_url = storage.join(url, SPEC)
        try:
            spec = TargetSpec.from_dict(storage.read_json(spec_url), spec_url)
        except FileNotFoundError as e:
            raise InputError(f"{url}: no {SPEC}; not a target set") from e
        if spec.fingerprint != url.rstrip("/").rsplit("/", 1)[-1]:
            raise InputError(f"{spec_url}: gives fingerprint {spec.fingerprint}, not its folder's name; edited?")
        return cls(url, spec)

    def unit_url(self, unit: str, *parts: str) -> str:
        """Of a unit's folder, or of what is in it; of a committed unit alone where it is its frames or its rows."""
        if parts and parts[0] != DONE and not storage.is_local(self.url) and (writer := self.writer(unit)):
            parts = (writer, *parts)
        return storage.join(self.url, UNITS, unit, *parts)

    def writer(self, unit: str) -> str:
        """The folder of its data, on an object store; empty where the unit was written by an earlier version."""
        if unit not in self.writers and unit in self.__dict__.get("done", ()):
            return self.done.writer(unit)
        if unit not in self.writers:
            self.writers[unit] = str((self.read_done(unit) or {}).get("writer", ""))
        return self.writers[unit]

    @cached_property
    def stamps(self) -> dict[str, str]:
        """The stamp of the done.json of every committed unit, as its store lists it."""
        return committed_units(storage.join(self.url, UNITS))

    @cached_property
    def done(self) -> UnitTable:
        """What the done.json of every committed unit says, by unit, oldest commit first. No rows are read."""
        left = set(self.stamps)
        tables = [found.units for found in read_segments(self.url, self.stamps, (), left)]
        self.not_indexed = names = sorted(left)
        for first in range(0, len(names), READ_AHEAD):
            group = names[first : first + READ_AHEAD]
            found = zip(group, storage.in_parallel(self.read_done, group, readers(self.url)), strict=True)
            tables.append(UnitTable.of({unit: done for unit, done in found if done is not None}))
        return UnitTable.joined(tables)

    def read_done(self, unit: str) -> dict[str, Any] | None:
        """None where the unit is not committed. RunError where its done.json is torn."""
        url = storage.join(self.url, UNITS, unit, DONE)
        try:
            done = storage.read_json(url)
        except FileNotFoundError:
            return None
        except NoAccess:
            raise
        except InputError as e:
            raise RunError(f"{e}; {REPAIR_HINT}") from e
        if not isinstance(done, dict) or not done.keys() >= DONE_KEYS:
            raise RunError(f"{url}: not a whole done.json; {REPAIR_HINT}")
        return done

    def read_table(self, unit: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one unit, with what it has of UNIT_SCHEMA, or some columns. RunError: they cannot be read."""
        url = self.unit_url(unit, ROWS)
        try:
            # A buffer, not a Python file: Arrow's threads that read one may outlive the interpreter and abort it.
            file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(url)))
            if not (file.schema_arrow.equals(UNIT_SCHEMA) or file.schema_arrow.equals(ROWS_SCHEMA)):
                raise RunError(f"{url}: has other columns than this version of coat writes; {REPAIR_HINT}")
            return file.read(columns, use_threads=False)
        except (FileNotFoundError, pa.ArrowException) as e:
            raise RunError(f"{url}: cannot be read ({e}); {REPAIR_HINT}") from e

    def read_rows(self, unit: str) -> list[Row]:
        return [Row(unit=unit, **row) for row in self.read_table(unit).to_pylist()]

    @cached_property
    def outcomes(self) -> Outcomes:
        """What became of every utterance: to plan and to count."""
        return self.outcomes_and_units()[0]

    @cached_property
    def rows(self) -> RowsByDigest:
        """The same by `Utterance.digest`, with the place of its frames: to read."""
        rows, units = self.read_outcomes(RowsByDigest, ROWS_SCHEMA.names)
        self.__dict__.setdefault("done", units)
        return rows

    def outcomes_and_units(self) -> tuple[Outcomes, UnitTable]:
        outcomes, units = self.read_outcomes(Outcomes, OUTCOME_COLUMNS)
        self.__dict__.setdefault("outcomes", outcomes)
        self.__dict__.setdefault("done", units)
        return outcomes, units

    def read_outcomes(self, kind: type[AnyOutcomes], columns: Sequence[str]) -> tuple[AnyOutcomes, UnitTable]:
        """Of all units: from the segments of the index, and of units that are in none from their own files."""
        names: list[str] = []
        units: list[UnitTable] = []

        def parts() -> Iterator[tuple[Sequence[str], NDArray[np.int32], pa.Table]]:
            for found in self.unit_rows(columns):
                units.append(found.units)
                yield found.units.names, found.number_N, found.table
            units[:] = [UnitTable.joined(units)]
            names.extend(units[0].names)

        try:
            outcomes = kind.of_parts(names, parts())
        except ValueError as e:
            raise RunError(f"{self.url}: {ROWS} of a unit holds {e}; {REPAIR_HINT}") from e
        return outcomes, units[0]

    def unit_rows(self, columns: Sequence[str]) -> Iterator[UnitRows]:
        left = set(self.stamps)
        yield from read_segments(self.url, self.stamps, columns, left)
        self.not_indexed = sorted(left)
        yield from self.read_units(sorted(left), columns)

    def read_units(self, names: Sequence[str], columns: Sequence[str]) -> Iterator[UnitRows]:
        """Of units by themselves: two files each, many at a time. RunError where one is damaged."""

        def read(unit: str) -> tuple[dict[str, Any], pa.Table] | None:
            done = self.read_done(unit)
            if done is None:
                return None  # dropped just now
            self.writers[unit] = str(done.get("writer", ""))
            return done, self.read_table(unit, columns)

        for first in range(0, len(names), READ_AHEAD):
            group = names[first : first + READ_AHEAD]
            found = dict(zip(group, storage.in_parallel(read, group, readers(self.url)), strict=True))
            there = {name: pair for name, pair in found.items() if pair is not None}
            if there:
                yield unit_rows({n: done for n, (done, _) in there.items()}, [table for _, table in there.values()])

    def refreshed(self) -> "TargetSet":
        """A snapshot of now. Of units that this one has seen nothing is read again, if they are as they were."""
        now = TargetSet(self.url, self.spec)
        if "outcomes" not in self.__dict__ or any(now.stamps.get(unit) != self.stamps[unit] for unit in self.done):
            return now
        outcomes, done = self.with_units(unit for unit in now.stamps if unit not in self.done)
        now.__dict__.update(outcomes=outcomes, done=done)
        return now

    def with_units(self, names: Iterable[str]) -> tuple[Outcomes, UnitTable]:
        """Outcomes and units of this snapshot and of units that were committed since: these alone are read.

        What this snapshot has read becomes part of them, so that it is not there twice. Asked for it, it reads again.
        """
        outcomes, before = self.outcomes, self.done
        new = sorted({name for name in names if name not in before})
        del self.__dict__["outcomes"], self.__dict__["done"]
        if not new:
            return outcomes, before
        parts = list(self.read_units(new, OUTCOME_COLUMNS))
        units = UnitTable.joined([p.units for p in parts])
        later = Outcomes.of_parts(units.names, [(p.units.names, p.number_N, p.table) for p in parts])
        done = before.extended(units)
        outcomes.extend(done.names, later)
        return outcomes, done

    def __len__(self) -> int:
        """Utterances with targets."""
        return int((self.outcomes.status == OK).sum())

    def read(self, utterance: str | Utterance) -> Target:
        """The target of one utterance, by id or by its manifest row.

        KeyError where there is none; InputError where two corpora in the store share the id: then
        only the manifest's row says which is meant.
        """
        if isinstance(utterance, Utterance):
            row = self.rows.get(utterance.digest)
            if row is None or row.status != "ok":
                raise KeyError(utterance.id)
            return self.read_row(row)
        found = self.rows.by_id(utterance)
        if not found:
            raise KeyError(utterance)
        if len(found) > 1:
            raise InputError(f"{self.url}: {len(found)} utterances have the id {utterance!r}; read it by manifest row")
        return self.read_row(found[0])

    def read_row(self, row: Row) -> Target:
        """RunError where the unit was damaged after its commit: Zarr checks every chunk that it reads."""
        frames = read_frames(self.unit_url(row.unit, FRAMES), row.first, row.frames, self.spec.dim)
        return Target(row.id, frames, self.spec.times(row.frames), self.spec)

    def dask(self, units: Iterable[str] | None = None) -> Any:
        """All frames of the committed units, or of some, as one float32 `dask.array` `[N, D]`, read lazily.

        Units lie in the order of their names. Float32 whatever is stored: sums of float16 overflow.
        """
        names = sorted(self.done if units is None else units)
        return dask_frames([(self.unit_url(n, FRAMES), int(self.done[n]["frames"])) for n in names], self.spec.dim)


def readers(url: str) -> int:
    return READERS if storage.is_local(url) else storage.REQUESTS


def committed_units(url: str) -> dict[str, str]:
    """The stamp of every done.json of a `units` folder, by unit. A long listing of a store is cut by hex digits."""
    cuts = [f"u-{digit:x}" for digit in range(1, 16)]
    return {unit: stamp for unit, stamp in storage.marked_stamps(url, DONE, cuts) if not unit.startswith(".")}
