"""A cell of a Parquet table, of which a column holds audio files as bytes (datasets of Hugging Face).

Parquet gives a column of a row group as a whole. So that is unpacked once a node, beside what was downloaded there, and
its cells are read out of it.
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from coat.manifests import storage

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
WIDTH = 8  # bytes of a number in what is unpacked
ROWS_AT_ONCE, READ_BYTES = 16, 2**20  # that are decoded and read: clips may have megabytes


@dataclass(frozen=True)
class ParquetCell:
    url: str
    row_group: int
    column: str  # its path: `audio.bytes` of a struct
    row: int  # in its group

    def open(self, keep: bool = False) -> io.BytesIO:
        """ValueError where there is no such cell, or none with bytes."""
        rows = int.from_bytes(self.unpacked(0, WIDTH), "little") // WIDTH - 1
        if self.row >= rows:
            raise ValueError(f"row group {self.row_group} has {rows} rows, none of number {self.row}; import it again")
        first = self.row * WIDTH
        start, stop = np.frombuffer(self.unpacked(first, first + 2 * WIDTH), "<i8").tolist()
        return io.BytesIO(self.unpacked(start, stop))

    def unpacked(self, start: int, stop: int) -> bytes:
        return storage.read_kept(f"{self.group_digest()} {self.column}", self.unpack, start, stop)

    def unpack(self) -> bytearray:
        """Where each row begins in what follows, and where the last one ends; then the bytes of all rows."""
        with open_table(self.url, READ_BYTES) as table:
            groups, schema = table.num_row_groups, table.schema_arrow
            if self.row_group >= groups:
                raise ValueError(f"{groups} row groups, none of number {self.row_group}; import it again")
            rows = table.metadata.row_group(self.row_group).num_rows
            held = bytearray((rows + 1) * WIDTH)
            edges = [np.array([len(held)])]
            with whole_table():
                for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=[self.row_group], columns=[self.column]):
                    found = pyarrow.Table.from_batches([batch])
                    if not is_binary_column(found):
                        has = ", ".join(f"{f.name} ({f.type})" for f in schema)
                        raise ValueError(f"no column {self.column} of bytes (it has {has[:200]}); import it again")
                    for chunk in leaf(found).chunks:
                        _, ends, data = chunk.buffers()
                        at = np.frombuffer(ends, "<i8")[chunk.offset : chunk.offset + len(chunk) + 1]
                        edges.append(at[1:] - at[0] + len(held))
                        held += memoryview(data or b"")[at[0] : at[-1]]
        table_of_edges = np.concatenate(edges).astype("<i8")
        if len(table_of_edges) != rows + 1:
            raise ValueError(f"not a whole Parquet table (row group {self.row_group} lacks some of its {rows} rows)")
        held[: table_of_edges.nbytes] = table_of_edges.tobytes()
        return held

    def group_digest(self) -> str:
        return f"{self.url}#row_group={self.row_group} {storage.recent_stamp(self.url)}"

    def size(self) -> int:
        return len(self.open().getvalue())

    def digest(self) -> str:
        return f"{self} {storage.info(self.url).stamp}"

    def __str__(self) -> str:
        return f"{self.url}#row_group={self.row_group}&column={quote(self.column, safe='')}&row={self.row}"


def open_table(url: str, buffer_bytes: int = 0) -> pyarrow.parquet.ParquetFile:
    """ValueError where it is no Parquet table. `buffer_bytes`: read of a column at a time; 0: all of a row group."""
    source = str(storage.local_path(url)) if storage.is_local(url) else storage.open_blocks(url)
    with whole_table():
        return pyarrow.parquet.ParquetFile(source, buffer_size=buffer_bytes)


@contextlib.contextmanager
def whole_table() -> Iterator[None]:
    """ValueError for what Arrow says of damaged tables: as an OSError, too, which has no number then."""
    try:
        yield
    except (pyarrow.ArrowInvalid, OSError) as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise
        raise ValueError(f"not a whole Parquet table ({str(e).splitlines()[0][:200]})") from e


def is_binary_column(table: pyarrow.Table) -> bool:
    """Whether it is one column of bytes, by itself or in structs."""
    if table.num_columns != 1:
        return False
    kind: Any = table.schema.field(0).type
    while is_list(kind) or (pyarrow.types.is_struct(kind) and kind.num_fields == 1):
        kind = kind.value_type if is_list(kind) else kind.field(0).type
    return is_binary(kind)


def is_binary(kind: Any) -> bool:
    """Also where its values are kept in a dictionary."""
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) or pyarrow.types.is_binary_view(kind)


def is_list(kind: Any) -> bool:
    return pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)


def leaf(table: pyarrow.Table) -> pyarrow.ChunkedArray:
    """The one column, out of its structs, and of a list the first; a row whose struct or list has nothing has none."""
    column = table.column(0)
    while not is_binary(column.type):
        column = pyarrow.chunked_array([inside(chunk) for chunk in column.chunks], inner_type(column.type))
    return column.cast(pyarrow.large_binary())


def inner_type(kind: Any) -> Any:
    return kind.value_type if is_list(kind) else kind.field(0).type


def inside(array: Any) -> Any:
    if pyarrow.types.is_struct(array.type):
        return array.flatten()[0]
    starts, has = array.offsets[:-1], pc.greater(pc.fill_null(array.value_lengths(), 0), 0)
    return array.values.take(pc.if_else(has, starts, None))
