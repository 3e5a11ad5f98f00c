"""Outcomes of all utterances of a target set, as columns: for millions of rows at once."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash
from numpy.typing import DTypeLike, NDArray

from coat.manifests.corpus.columns import TEXT, concatenate_tables
from coat.manifests.corpus.digests import from_hex, hash_texts, to_hex
from coat.pipeline.store.rows import FAILED, OK, STATUSES, Row

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
OUTCOME_COLUMNS = ("id", "digest", "seconds", "status", "error")  # what planning and counting read of it
COUNTED = pa.schema(
    [
        pa.field("digest", pa.uint64()),
        pa.field("seconds", pa.float64()),
        pa.field("status", pa.int8()),  # index into STATUSES
    ]
)
NOT_OK = pa.schema([pa.field("id", TEXT), pa.field("error", TEXT)])
LOCATIONS = pa.schema(
    [
        pa.field("id", TEXT),
        pa.field("source", pa.string()),
        pa.field("first", pa.int64()),
        pa.field("frames", pa.int64()),
    ]
)
GROUPED_UNITS = 512  # turned into columns at a time: thousands of small tables take more room than their values
BLOCK_ROWS = 2**20  # gathered or sorted at a time: NumPy makes indices of 8 bytes of whatever it is given
SHARES = 16  # of the digests' range, which are sorted one after the other


@dataclass(frozen=True)
class Counts:
    """What became of some rows. `seconds`: of the audio of those that are ok."""

    ok: int
    failed: int
    skipped: int
    seconds: float
    reasons: dict[str, int]  # of those that are not ok; the most frequent first
    failures: tuple[tuple[str, str], ...]  # id, error


FIRST_ITEMS = 2**16


class Outcomes:
    """What became of every utterance; the newest outcome, where one was tried more than once.

    For millions of rows at once: some 25 bytes a row, and the ids and errors of those that are not ok. While it is made
    one of its columns is there twice.
    """

    location_schema = pa.schema([])  # of further columns that are kept

    def __init__(self, units: Sequence[str], tables: Iterable[pa.Table]) -> None:
        """`tables`: of each unit, oldest commit first. ValueError where a value is none of its kind."""
        self.units = tuple(units)
        self.collect(grouped(tables), None)

    @classmethod
    def of_parts(cls, units: Sequence[str], parts: Iterable[tuple[Sequence[str], NDArray[np.int32], pa.Table]]) -> Self:
        """From parts in any order: of each its units, of every row the place of its unit among them, and the rows.

        `units` is read when the parts have been: all units, oldest commit first.
        """
        self = cls.__new__(cls)
        names: list[str] = []

        def numbered() -> Iterator[tuple[NDArray[np.int32], pa.Table]]:
            for part_units, number_N, table in parts:
                before = len(names)
                names.extend(part_units)
                yield number_N + np.int32(before), table

        self.collect(numbered(), lambda: ranks(names, units))
        self.units = tuple(units)
        return self

    def collect(
        self,
        parts: Iterable[tuple[NDArray[np.int32], pa.Table]],
        rank: Callable[[], NDArray[np.int32]] | None,
    ) -> None:
        """Rows as columns. `rank`: the place of a unit in the order of commits by its number, once all were read."""
        unit, not_ok, locations = GrowingArray(np.int32), list[pa.Table](), list[pa.Table]()
        columns = {field.name: GrowingArray(field.type.to_pandas_dtype()) for field in COUNTED}
        for number_N, table in parts:
            unit.append(number_N)
            counted = counted_columns(table)
            for name, column in columns.items():
                column.append(counted[name].to_numpy())
            bad = table.filter(pc.not_equal(table["status"], "ok"))
            if len(bad):
                not_ok.append(bad.select(NOT_OK.names).cast(NOT_OK).combine_chunks())
            if self.location_schema.names:
                location = table.select(self.location_schema.names).cast(self.location_schema)
                locations.append(location.combine_chunks())
        self.unit = unit.values
        self.digests, self.seconds, self.status = (columns[name].values for name in COUNTED.names)
        self.not_ok, self.locations = (
            concatenate_tables(not_ok, NOT_OK),
            concatenate_tables(locations, self.location_schema),
        )
        pa.default_memory_pool().release_unused()  # what the units' tables took
        if rank is not None and len(self.unit):
            renumber(self.unit, rank())
        self.keep_newest(in_order=rank is None)

    def order_by_commit(self) -> None:
        if (self.unit[1:] >= self.unit[:-1]).all():
            return
        order = np.argsort(self.unit, kind="stable")
        bad = self.status[order] != OK
        self.not_ok = self.not_ok.take(pa.array(self.not_ok_index(order[bad]))).combine_chunks()
        if self.location_schema.names:
            self.locations = self.locations.take(pa.array(order)).combine_chunks()
        self.digests, self.seconds, self.status = self.digests[order], self.seconds[order], self.status[order]
        self.unit = self.unit[order]

    def keep_newest(self, in_order: bool) -> None:
        """Where rows are not in the order of commits, they are brought into it if somebody will see it."""
        if not in_order and self.location_schema.names:
            self.order_by_commit()
            in_order = True
        self.order = ascending_order(self.digests)
        replaced = equals_next(self.digests, self.order)
        if replaced.any() and not in_order:
            self.order_by_commit()
            self.keep_newest(in_order=True)
        elif replaced.any():
            self.keep_only(np.delete(self.order, np.flatnonzero(replaced)))

    def extend(self, units: Sequence[str], later: Self) -> None:
        """Take in the rows of further units. `units`: all of them, oldest commit first."""
        if not len(later.digests):
            return
        self.unit = np.concatenate([self.unit, later.unit + np.int32(len(self.units))])
        renumber(self.unit, ranks([*self.units, *later.units], units))
        self.units = tuple(units)
        self.__dict__.pop("sorted_digests", None)
        self.__dict__.pop("ids", None)
        del self.order
        for name in ("digests", "seconds", "status"):  # one after the other: each old one is let go
            setattr(self, name, np.concatenate([getattr(self, name), getattr(later, name)]))
        self.not_ok = concatenate_tables([self.not_ok, later.not_ok], NOT_OK)
        self.locations = concatenate_tables([self.locations, later.locations], self.location_schema)
        self.keep_newest(in_order=False)

    def keep_only(self, positions: NDArray[np.integer]) -> None:
        kept = np.zeros(len(self.digests), bool)
        kept[positions] = True
        self.not_ok = self.not_ok.filter(pa.array(kept[self.status != OK])).combine_chunks()
        if self.location_schema.names:
            self.locations = self.locations.filter(pa.array(kept)).combine_chunks()
        self.digests, self.seconds, self.status = self.digests[kept], self.seconds[kept], self.status[kept]
        self.unit = self.unit[kept]
        self.order = ascending_order(self.digests)

    @cached_property
    def sorted_digests(self) -> NDArray[np.uint64]:
        """As `order` has them: to be searched."""
        found = np.empty_like(self.digests)
        for start in range(0, len(found), BLOCK_ROWS):
            found[start : start + BLOCK_ROWS] = self.digests[self.order[start : start + BLOCK_ROWS]]
        return found

    def find(self, digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Positions of rows by digest; -1 where there is none."""
        found = np.full(len(digests), -1)
        if not len(self.digests):
            return found
        for start in range(0, len(digests), BLOCK_ROWS):
            block = digests[start : start + BLOCK_ROWS]
            ascending = np.argsort(block)  # so that the search goes through memory once
            wanted = block[ascending]
            at = np.minimum(np.searchsorted(self.sorted_digests, wanted), len(self.sorted_digests) - 1)
            found[start + ascending] = np.where(self.sorted_digests[at] == wanted, self.order[at], -1)
        return found

    def count(self, positions: NDArray[np.integer] | None = None) -> Counts:
        """Of all rows, in the order of the commits, or of those at `positions`."""
        if positions is None:
            positions = np.argsort(self.unit, kind="stable")
        status = self.status[positions]
        ok, failed, skipped = np.bincount(status, minlength=3).tolist()
        bad = positions[status != OK]
        not_ok = self.not_ok.take(pa.array(self.not_ok_index(bad)))
        ids, errors, kinds = not_ok["id"].to_pylist(), not_ok["error"].to_pylist(), self.status[bad].tolist()
        reasons = Counter(e.split(":", 1)[0] if e else STATUSES[k] for e, k in zip(errors, kinds, strict=True))
        failures = tuple((i, e or "") for i, e, k in zip(ids, errors, kinds, strict=True) if k == FAILED)
        seconds = float(self.seconds[positions[status == OK]].sum())
        return Counts(ok, failed, skipped, seconds, dict(reasons.most_common()), failures)

    def not_ok_index(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Where rows that are not ok stand in `not_ok`."""
        return np.searchsorted(np.flatnonzero(self.status != OK), positions)


class RowsByDigest(Outcomes, Mapping[str, Row]):
    """Outcomes with what it takes to read each one's frames, by `Utterance.digest`."""

    location_schema = LOCATIONS

    def row_at(self, position: int) -> Row:
        (values,) = self.locations.slice(position, 1).to_pylist()
        status = STATUSES[self.status[position]]
        error = None
        if status != "ok":
            error = self.not_ok["error"][int(self.not_ok_index(np.array([position]))[0])].as_py()
        unit, digest = self.units[self.unit[position]], f"{self.digests[position]:016x}"
        return Row(unit, digest=digest, seconds=float(self.seconds[position]), status=status, error=error, **values)

    def by_id(self, identity: str) -> list[Row]:
        """Rows with this id that have targets: several, where two corpora in one store share it."""
        order, digests = self.ids
        wanted = np.uint64(xxhash.xxh3_64_intdigest(identity.encode()))
        start, stop = (np.searchsorted(digests, wanted, side=side) for side in ("left", "right"))
        rows = [self.row_at(int(position)) for position in np.sort(order[start:stop])]
        return [row for row in rows if row.id == identity and row.status == "ok"]

    @cached_property
    def ids(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Positions by the digest of their id, and these digests, ascending."""
        digests = hash_texts(self.locations.column("id").chunk(0))
        order = np.argsort(digests)
        return order, digests[order]

    def __getitem__(self, digest: str) -> Row:
        try:
            wanted = np.uint64(int(digest, 16))
        except ValueError as e:
            raise KeyError(digest) from e
        at = np.searchsorted(self.sorted_digests, wanted)
        if at == len(self) or self.sorted_digests[at] != wanted:
            raise KeyError(digest)
        return self.row_at(int(self.order[at]))

    def __len__(self) -> int:
        return len(self.unit)

    def __iter__(self) -> Iterator[str]:
        return iter(to_hex(self.digests))


def renumber(unit: NDArray[np.int32], rank: NDArray[np.int32]) -> None:
    """In place."""
    for start in range(0, len(unit), BLOCK_ROWS):
        unit[start : start + BLOCK_ROWS] = rank[unit[start : start + BLOCK_ROWS]]


def ascending_order(digests: NDArray[np.uint64]) -> NDArray[np.integer]:
    """As a stable argsort, whose memory is that of a share of the digests. They are hashes: shares are of a size."""
    if len(digests) <= BLOCK_ROWS:
        return np.argsort(digests, kind="stable").astype(np.int32)
    order = np.empty(len(digests), np.int32 if len(digests) < 2**31 else np.int64)
    width, at = 2**64 // SHARES, 0
    for first in range(0, 2**64, width):
        share = np.flatnonzero((digests >= np.uint64(first)) & (digests <= np.uint64(first + width - 1)))
        order[at : at + len(share)] = share[np.argsort(digests[share], kind="stable")]
        at += len(share)
    return order


def equals_next(digests: NDArray[np.uint64], order: NDArray[np.integer]) -> NDArray[np.bool_]:
    """By place in `order`: whether the row at the next place has the same digest."""
    found = np.zeros(len(order), bool)
    for start in range(0, len(order), BLOCK_ROWS):
        part = digests[order[start : start + BLOCK_ROWS + 1]]
        found[start : start + max(len(part) - 1, 0)] = part[1:] == part[:-1]
    return found


def grouped(tables: Iterable[pa.Table]) -> Iterator[tuple[NDArray[np.int32], pa.Table]]:
    left, before = iter(tables), 0
    while group := list(islice(left, GROUPED_UNITS)):
        numbers = np.arange(before, before + len(group), dtype=np.int32)
        yield np.repeat(numbers, [len(t) for t in group]), pa.concat_tables(group)
        before += len(group)


def ranks(names: Sequence[str], units: Sequence[str]) -> NDArray[np.int32]:
    """The place of each name in `units`."""
    place = {unit: i for i, unit in enumerate(units)}
    return np.array([place[name] for name in names], np.int32)


def counted_columns(table: pa.Table) -> pa.Table:
    """A table of ROWS_SCHEMA as COUNTED."""
    status = pc.index_in(table["status"].combine_chunks(), pa.array(STATUSES))
    if status.null_count:
        raise ValueError(f"a status that is none of {', '.join(STATUSES)}")
    digests = pa.array(from_hex(table["digest"].combine_chunks()))
    return pa.table([digests, table["seconds"].combine_chunks(), status.cast(pa.int8())], schema=COUNTED)


class GrowingArray:
    """One dimension, growing at its end: thousands of small ones would leave holes in memory that nothing fits into.

    What was not written to yet takes no memory.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.items: NDArray[Any] = np.empty(FIRST_ITEMS, dtype)
        self.size = 0

    def append(self, part: NDArray[Any]) -> None:
        stop = self.size + len(part)
        if stop > len(self.items):
            larger = np.empty(max(stop, 2 * len(self.items)), self.items.dtype)
            larger[: self.size] = self.values
            self.items = larger
        self.items[self.size : stop] = part
        self.size = stop

    @property
    def values(self) -> NDArray[Any]:
        """All that was appended."""
        return self.items[: self.size]
