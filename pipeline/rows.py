"""Outcomes of utterances: one as a Row, and all of a target set as columns."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash
from numpy.typing import NDArray

from coat.manifests.digests import from_hex, hashes, to_hex
from coat.manifests.table import TEXT, concatenated

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers

Status = Literal["ok", "failed", "skipped"]
STATUSES: tuple[Status, ...] = ("ok", "failed", "skipped")
OK, FAILED, SKIPPED = range(3)

ROWS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),  # Utterance.digest: the id and span that were asked for
        pa.field("source", pa.string()),  # Clip.digest: the sound that was heard; null where nothing was decoded
        pa.field("seconds", pa.float64(), nullable=False),  # decoded
        pa.field("first", pa.int64(), nullable=False),  # of its frames in frames.zarr
        pa.field("frames", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # ok, failed, skipped
        pa.field("error", pa.string()),  # "reason: message"
    ]
)
COLUMNS = pa.schema(
    [
        pa.field("id", TEXT),
        pa.field("digest", pa.uint64()),
        pa.field("source", TEXT),
        pa.field("seconds", pa.float64()),
        pa.field("first", pa.int64()),
        pa.field("frames", pa.int64()),
        pa.field("status", pa.int8()),  # index into STATUSES
        pa.field("error", TEXT),
    ]
)
GROUPED_UNITS = 512  # made into columns at a time: thousands of small tables take more room than their values


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one utterance, and where its frames lie."""

    unit: str
    id: str
    digest: str
    source: str | None
    seconds: float
    first: int
    frames: int
    status: Status
    error: str | None

    @property
    def reason(self) -> str | None:
        """The first word of the error, for counting: `missing`, `span`, `too_short`, ..."""
        return self.error.split(":", 1)[0] if self.error else None


@dataclass(frozen=True)
class Counts:
    """What became of some rows. `seconds`: of the audio of those that are ok."""

    ok: int
    failed: int
    skipped: int
    seconds: float
    reasons: dict[str, int]  # of those that are not ok; the most frequent first
    failures: tuple[tuple[str, str], ...]  # id, error


class Rows(Mapping[str, Row]):
    """Rows by `Utterance.digest`, in the order of their commits; the newest, where one was tried more than once.

    Columns inside: some 100 bytes a row. `find` and `count` are for millions of rows at once.
    """

    def __init__(self, units: Sequence[str], tables: Iterable[pa.Table]) -> None:
        """`tables`: the ROWS_SCHEMA of each unit, oldest commit first. ValueError where a value is none of its kind."""
        self.units = tuple(units)
        lengths, groups = [], []
        tables = iter(tables)
        while group := list(islice(tables, GROUPED_UNITS)):
            lengths += [len(t) for t in group]
            groups.append(columns(pa.concat_tables(group)))
        self.table = concatenated(groups, COLUMNS)
        self.unit = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        order = np.argsort(self.digests, kind="stable")
        newest = np.append(np.diff(self.digests[order]) != 0, True)[: len(order)]
        if not newest.all():
            kept = np.sort(order[newest])
            self.table, self.unit = self.table.take(pa.array(kept)).combine_chunks(), self.unit[kept]
            order = np.argsort(self.digests, kind="stable")
        self.order = order.astype(np.int32) if len(order) < 2**31 else order
        self.sorted = self.digests[order]

    @property
    def digests(self) -> NDArray[np.uint64]:
        return self.column("digest").to_numpy()

    @property
    def status(self) -> NDArray[np.int8]:
        """Indices into STATUSES."""
        return self.column("status").to_numpy()

    def column(self, name: str) -> pa.Array:
        column = self.table.column(name)
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def find(self, digests: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Positions of rows by digest; -1 where there is none."""
        if not len(self):
            return np.full(len(digests), -1)
        ascending = np.argsort(digests)  # so that the search goes through memory once
        wanted = digests[ascending]
        at = np.minimum(np.searchsorted(self.sorted, wanted), len(self) - 1)
        found = np.empty(len(digests), np.int64)
        found[ascending] = np.where(self.sorted[at] == wanted, self.order[at], -1)
        return found

    def count(self, positions: NDArray[np.integer] | None = None) -> Counts:
        """Of all rows, or of those at `positions`."""
        positions = np.arange(len(self)) if positions is None else positions
        status = self.status[positions]
        ok, failed, skipped = np.bincount(status, minlength=3).tolist()
        bad = self.table.select(["id", "error"]).take(pa.array(positions[status != OK]))
        ids, errors, kinds = bad["id"].to_pylist(), bad["error"].to_pylist(), status[status != OK].tolist()
        reasons = Counter(e.split(":", 1)[0] if e else STATUSES[k] for e, k in zip(errors, kinds, strict=True))
        failures = tuple((i, e or "") for i, e, k in zip(ids, errors, kinds, strict=True) if k == FAILED)
        seconds = float(self.column("seconds").to_numpy()[positions[status == OK]].sum())
        return Counts(ok, failed, skipped, seconds, dict(reasons.most_common()), failures)

    def at(self, position: int) -> Row:
        (values,) = self.table.slice(position, 1).to_pylist()
        values |= {"digest": f"{values['digest']:016x}", "status": STATUSES[values["status"]]}
        return Row(unit=self.units[self.unit[position]], **values)

    def by_id(self, identity: str) -> list[Row]:
        """Rows that have targets. Several, where two corpora in one store share the id."""
        order, digests = self.ids
        wanted = np.uint64(xxhash.xxh3_64_intdigest(identity.encode()))
        start, stop = (np.searchsorted(digests, wanted, side=side) for side in ("left", "right"))
        rows = [self.at(int(position)) for position in np.sort(order[start:stop])]
        return [row for row in rows if row.id == identity and row.status == "ok"]

    @cached_property
    def ids(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Positions by the digest of their id, and these digests, ascending."""
        digests = hashes(self.column("id"))
        order = np.argsort(digests)
        return order, digests[order]

    def __getitem__(self, digest: str) -> Row:
        try:
            wanted = np.uint64(int(digest, 16))
        except ValueError as e:
            raise KeyError(digest) from e
        at = np.searchsorted(self.sorted, wanted)
        if at == len(self) or self.sorted[at] != wanted:
            raise KeyError(digest)
        return self.at(int(self.order[at]))

    def __len__(self) -> int:
        return len(self.unit)

    def __iter__(self) -> Iterator[str]:
        return iter(to_hex(self.digests))


def columns(table: pa.Table) -> pa.Table:
    """A table of ROWS_SCHEMA as COLUMNS, in one chunk."""
    status = pc.index_in(table["status"].combine_chunks(), pa.array(STATUSES))
    if status.null_count:
        raise ValueError(f"a status that is none of {', '.join(STATUSES)}")
    table = table.set_column(1, "digest", pa.array(from_hex(table["digest"].combine_chunks())))
    return table.set_column(6, "status", status).cast(COLUMNS).combine_chunks()
