"""Index segments: the outcomes of many units in one file, so that a run that resumes reads few.

    <target set>/index/s-<random>.parquet   rows as ROWS_SCHEMA has them, and `unit`, a number; in the file's metadata
                                            the units: name, stamp and kept parts of done.json

A segment is a cache. It may be deleted at any time: a unit without one still counts, it is read by itself. `stamp` is
that of the unit's done.json in the listing of its store. A unit that was dropped has none, and one that was made again
has another: it is read by itself too.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coat.manifests import storage
from coat.pipeline.store.layout import INDEX
from coat.pipeline.store.rows import ROWS_SCHEMA
from coat.pipeline.store.unit_table import KEPT, UnitTable

UNITS_KEY = b"coat.units"
NUMBER = pa.field("unit", pa.int32(), nullable=False)
SEGMENT_SCHEMA = pa.schema([*ROWS_SCHEMA, NUMBER])
SEGMENT_UNITS = 1000  # that a run commits before it writes a segment
READERS = 4  # segments that are read at a time: bounds the memory


@dataclass(frozen=True)
class UnitRows:
    """Rows of some units: `number` is the place of a row's unit in `units`."""

    units: UnitTable
    table: pa.Table  # of ROWS_SCHEMA, or some of its columns
    number_N: NDArray[np.int32]


def write_segment(set_url: str, stamps: Mapping[str, str], units: UnitTable, table: pa.Table) -> None:
    """`table`: of SEGMENT_SCHEMA; its units are those of `units`, by their place there."""
    facts = {"names": units.names, "stamps": [stamps[n] for n in units.names], "kept": encode(units.values_U)}
    sink = pa.BufferOutputStream()
    stamped = table.cast(SEGMENT_SCHEMA).replace_schema_metadata({UNITS_KEY: json.dumps(facts).encode()})
    pq.write_table(stamped, sink, compression="zstd")
    url = storage.join(set_url, INDEX, f"s-{uuid.uuid4().hex[:16]}.parquet")
    storage.write_bytes(url, sink.getvalue().to_pybytes(), sync=False, parents=False)


def encode(values_U: NDArray[np.void]) -> dict[str, list[Any]]:
    plain = {name: values_U[name].tolist() for name in KEPT.names or ()}
    return {name: [v.decode() if isinstance(v, bytes) else v for v in column] for name, column in plain.items()}


def decode(kept: Mapping[str, Sequence[Any]], length: int) -> NDArray[np.void]:
    values_U = np.zeros(length, KEPT)
    for name, column in kept.items():
        values_U[name] = column
    return values_U


def read_segments(
    set_url: str, stamps: Mapping[str, str], columns: Sequence[str], left: set[str] | None = None
) -> Iterator[UnitRows]:
    """The units of all segments that are still as they were. `stamps`: of every committed unit, by unit.

    `left`: the units that are wanted, from which those that were found are taken.
    """
    left = set(stamps) if left is None else left
    urls = [
        storage.join(set_url, INDEX, name)
        for name in storage.list_names(storage.join(set_url, INDEX))
        if name.startswith("s-") and name.endswith(".parquet")
    ]
    for data in storage.read_many(urls, READERS):
        if data is None:
            continue
        pa.default_memory_pool().release_unused()  # what the last one took
        found = parse_segment(data, stamps, columns, left)
        if found is not None:
            left.difference_update(found.units)
            found.units.__dict__.pop("position", None)  # there will be one of all
            yield found


def parse_segment(data: bytes, stamps: Mapping[str, str], columns: Sequence[str], left: set[str]) -> UnitRows | None:
    """None where nothing in it counts, or it is damaged: then its units are read by themselves."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        facts = json.loads((file.schema_arrow.metadata or {})[UNITS_KEY])
        names, values_U = facts["names"], decode(facts["kept"], len(facts["names"]))
        table = file.read([*columns, NUMBER.name], use_threads=False)
    except (pa.ArrowException, KeyError, ValueError, TypeError):
        return None
    kept = np.array([stamps.get(n) == s and n in left for n, s in zip(names, facts["stamps"], strict=True)], bool)
    if not kept.any():
        return None
    units = UnitTable([n for n, k in zip(names, kept, strict=True) if k], values_U[kept])
    place = np.array([units.position.get(n, -1) for n in names], np.int32)
    number_N = place[table[NUMBER.name].to_numpy()]
    table = table.drop_columns([NUMBER.name])
    if not kept.all():
        table, number_N = table.filter(pa.array(number_N >= 0)), number_N[number_N >= 0]
    return UnitRows(units, table, number_N)


def unit_rows(done: Mapping[str, Mapping[str, Any]], tables: Iterable[pa.Table]) -> UnitRows:
    """Of units that were read by themselves; `tables` in the order of `done`."""
    units = UnitTable.of(done)
    found = list(tables)
    place = np.array([units.position[name] for name in done], np.int32)
    return UnitRows(units, pa.concat_tables(found), np.repeat(place, [len(t) for t in found]))
