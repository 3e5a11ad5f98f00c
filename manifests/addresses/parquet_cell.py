"""A cell of a Parquet table, of which a column holds audio files as bytes (datasets of Hugging Face).

Parquet gives a column of a row group as a whole. So that is unpacked once a node, beside what was downloaded there, and
its cells are read out of it.
"""

import io
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow
import pyarrow.parquet

from coat.manifests import storage

WIDTH = 8  # bytes of a number in what is unpacked


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

    def unpack(self) -> bytes:
        """Where each row begins in what follows, and where the last one ends; then the bytes of all rows."""
        with open_table(self.url) as table:
            groups, schema = table.num_row_groups, table.schema_arrow
            if self.row_group >= groups:
                raise ValueError(f"{groups} row groups, none of number {self.row_group}; import it again")
            found = table.read_row_group(self.row_group, columns=[self.column])
        values = leaf(found).cast(pyarrow.large_binary()) if is_binary_column(found) else None
        if values is None:
            has = ", ".join(f"{f.name} ({f.type})" for f in schema)
            raise ValueError(f"no column {self.column} of bytes (it has {has[:200]}); import it again")
        packed = pyarrow.concat_arrays([pyarrow.array([], pyarrow.large_binary()), *values.chunks])
        _, ends, data = packed.buffers()
        edges = np.frombuffer(ends, "<i8")[packed.offset : packed.offset + len(packed) + 1]
        held = memoryview(data or b"")[edges[0] : edges[-1]]
        return (edges - edges[0] + len(edges) * WIDTH).tobytes() + held

    def group_digest(self) -> str:
        return f"{self.url}#row_group={self.row_group} {storage.recent_stamp(self.url)}"

    def size(self) -> int:
        return len(self.open().getvalue())

    def digest(self) -> str:
        return f"{self} {storage.info(self.url).stamp}"

    def __str__(self) -> str:
        return f"{self.url}#row_group={self.row_group}&column={quote(self.column, safe='')}&row={self.row}"


def open_table(url: str) -> pyarrow.parquet.ParquetFile:
    """ValueError where it is no Parquet table."""
    source = str(storage.local_path(url)) if storage.is_local(url) else storage.open_blocks(url)
    try:
        return pyarrow.parquet.ParquetFile(source)
    except pyarrow.ArrowInvalid as e:
        raise ValueError(f"not a whole Parquet table ({str(e).splitlines()[0][:200]})") from e


def is_binary_column(table: pyarrow.Table) -> bool:
    """Whether it is one column of bytes, by itself or in structs."""
    if table.num_columns != 1:
        return False
    kind: Any = table.schema.field(0).type
    while pyarrow.types.is_struct(kind) and kind.num_fields == 1:
        kind = kind.field(0).type
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def leaf(table: pyarrow.Table) -> pyarrow.ChunkedArray:
    """The one column, out of its structs; a row whose struct is null has none."""
    while pyarrow.types.is_struct(table.schema.field(0).type):
        table = table.flatten()
    return table.column(0)
