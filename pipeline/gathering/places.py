"""Where the targets of a manifest's rows lie, as columns in temporary files: for tens of millions of rows.

M rows of a manifest. In memory are the columns of one target set at a time, some 80 bytes a row, while it is read. What
is kept is mapped from unnamed files, which the kernel drops from memory as it likes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.corpus.digests import from_hex
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import RunError
from coat.pipeline.store.frames_reader import REPAIR_HINT
from coat.pipeline.store.layout import ROWS
from coat.pipeline.store.rows import OK, STATUSES, Row
from coat.pipeline.store.target_set import TargetSet

pc: Any = pyarrow.compute

UNKNOWN = -1  # status of a row that was not extracted
IN_MEMORY_BYTES = 2**20  # a column up to this is not worth a file
READERS, UNITS_AT_ONCE = 16, 512
COLUMNS = {
    "digest": "u8",
    "unit": "i4",
    "first": "i8",
    "frames": "i8",
    "seconds": "f8",
    "source": "S16",
    "status": "i1",
}


@dataclass(frozen=True)
class TargetPlaces:
    """What one target set has for each row of a manifest; the newest outcome, where one was tried more than once."""

    units: Sequence[str]
    unit_M: NDArray[np.int32]  # index into `units`
    first_M: NDArray[np.int64]  # of its frames in the unit
    frames_M: NDArray[np.int64]
    seconds_M: NDArray[np.float64]  # decoded
    source_M: NDArray[np.bytes_]  # Clip.digest; empty where nothing was decoded
    status_M: NDArray[np.int8]  # index into STATUSES; UNKNOWN: nothing of it

    @property
    def ok_M(self) -> NDArray[np.bool_]:
        return self.status_M == OK

    def row(self, position: int, u: Utterance) -> Row | None:
        """Of a row with targets; None where it has none."""
        return self.row_of(position, u.id, u.digest) if self.status_M[position] == OK else None

    def row_of(self, position: int, identity: str, digest: str) -> Row:
        """Of a row that has targets."""
        return Row(
            unit=self.units[int(self.unit_M[position])],
            id=identity,
            digest=digest,
            source=self.source_M[position].decode() or None,
            seconds=float(self.seconds_M[position]),
            first=int(self.first_M[position]),
            frames=int(self.frames_M[position]),
            status=STATUSES[OK],
            error=None,
        )


@dataclass(frozen=True)
class SetColumns:
    """All rows of a target set, oldest commit first."""

    units: Sequence[str]
    unit_frames: dict[str, int]
    columns: dict[str, NDArray[Any]]

    def places(self, digests_M: NDArray[np.uint64], order: NDArray[np.int64]) -> TargetPlaces:
        """`order` sorts the rows by digest, equal ones by commit."""
        found_M = find_newest(self.columns["digest"], order, digests_M)
        missing_M = found_M < 0

        def column(name: str) -> NDArray[Any]:
            values = self.columns[name]
            chosen = values[found_M] if len(values) else np.zeros(len(found_M), values.dtype)
            chosen[missing_M] = UNKNOWN if name == "status" else np.zeros(1, values.dtype)[0]
            return on_disk(chosen)

        return TargetPlaces(self.units, *(column(n) for n in COLUMNS if n != "digest"))


def find_places(targets: TargetSet, digests: Sequence[NDArray[np.uint64]]) -> tuple[list[TargetPlaces], dict[str, int]]:
    """Of each manifest, given by the digests of its rows, and the frames of every unit. RunError: damage."""
    columns = read_columns(targets)
    order = np.argsort(columns.columns["digest"], kind="stable")
    return [columns.places(digests_M, order) for digests_M in digests], columns.unit_frames


def read_columns(targets: TargetSet) -> SetColumns:
    own = TargetSet(targets.url, targets.spec)  # so that what it reads of every unit is not kept
    units = tuple(own.done)
    total = sum(int(own.done[u]["rows"]) for u in units)
    columns: dict[str, NDArray[Any]] = {name: np.zeros(total, dtype) for name, dtype in COLUMNS.items()}
    at = 0
    for first, tables in read_tables(own, units):
        lengths = [len(t) for t in tables]
        table = pa.concat_tables(tables)
        part = slice(at, at + len(table))
        at += len(table)
        if at > total:
            break
        try:
            fill_columns({name: column[part] for name, column in columns.items()}, table)
        except ValueError as e:
            raise RunError(f"{own.url}: {ROWS} of a unit holds {e}; {REPAIR_HINT}") from e
        columns["unit"][part] = np.repeat(np.arange(first, first + len(tables), dtype=np.int32), lengths)
    if at != total:
        raise RunError(f"{own.url}: {ROWS} of a unit has not as many rows as its done.json says; {REPAIR_HINT}")
    pa.default_memory_pool().release_unused()
    if not storage.is_local(own.url):
        targets.writers.update((unit, own.writer(unit)) for unit in units)  # so that nobody asks for it by unit
    return SetColumns(units, {u: int(own.done[u]["frames"]) for u in units}, columns)


def read_tables(targets: TargetSet, units: Sequence[str]) -> Iterator[tuple[int, list[pa.Table]]]:
    names = ("digest", "source", "seconds", "first", "frames", "status")
    with ThreadPoolExecutor(READERS) as pool:
        for first in range(0, len(units), UNITS_AT_ONCE):
            group = units[first : first + UNITS_AT_ONCE]
            yield first, list(pool.map(lambda unit: targets.read_table(unit, names), group))


def fill_columns(columns: dict[str, NDArray[Any]], table: pa.Table) -> None:
    """ValueError says what is none of its kind."""
    columns["digest"][:] = from_hex(table["digest"].combine_chunks())
    for name in ("first", "frames", "seconds"):
        columns[name][:] = table[name].to_numpy()
    status = pc.index_in(table["status"].combine_chunks(), pa.array(STATUSES))
    if status.null_count:
        raise ValueError(f"a status that is none of {', '.join(STATUSES)}")
    columns["status"][:] = status.to_numpy()
    sources = pc.fill_null(table["source"], "").to_pylist()
    columns["source"][:] = np.array(sources, dtype="S")
    if max(map(len, sources), default=0) > columns["source"].itemsize:
        raise ValueError("a source that is not 16 hex digits")


def find_newest(digests: NDArray[np.uint64], order: NDArray[np.int64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions in `digests`; -1 where there is none, the last where there are several."""
    if not len(digests):
        return np.full(len(wanted), -1)
    ascending = np.argsort(wanted)  # so that the search goes through memory once
    in_order = digests[order]
    at = np.maximum(np.searchsorted(in_order, wanted[ascending], side="right") - 1, 0)
    found = np.empty(len(wanted), np.int64)
    found[ascending] = np.where(in_order[at] == wanted[ascending], order[at], -1)
    return found


def on_disk(column: NDArray[Any]) -> NDArray[Any]:
    """The same values, mapped from an unnamed file. RunError where the temporary folder does not take it."""
    if column.nbytes <= IN_MEMORY_BYTES:
        return column
    try:
        with tempfile.TemporaryFile(prefix="coat-column-") as f:
            f.write(np.ascontiguousarray(column).view(np.uint8).data)
            f.flush()
            return np.memmap(f, column.dtype, "r+", shape=column.shape)
    except OSError as e:
        raise RunError(
            f"{tempfile.gettempdir()}: cannot hold the columns of a plan ({e.strerror or e}); point TMPDIR at a larger "
            "disk"
        ) from e
