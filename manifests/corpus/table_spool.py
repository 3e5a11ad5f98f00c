"""A table that grows: in memory up to a limit, beyond it in an unnamed file that is mapped.

The kernel drops pages of a mapped file from memory as it likes, so that a manifest may be larger than that.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coat.manifests.corpus.columns import concatenate_tables
from coat.manifests.errors import RunError

IN_MEMORY_BYTES = 256 * 2**20  # also of one batch of the file


class TableSpool:
    """`on_disk` False: always in memory."""

    def __init__(self, schema: pa.Schema, on_disk: bool) -> None:
        self.schema, self.on_disk = schema, on_disk
        self.waiting: list[pa.Table] = []
        self.waiting_bytes = 0
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.writer: Any = None

    def add(self, table: pa.Table) -> None:
        self.waiting.append(table)
        self.waiting_bytes += table.nbytes
        if self.on_disk and self.waiting_bytes > IN_MEMORY_BYTES:
            self.write()

    def write(self) -> None:
        """RunError where the temporary folder does not take it."""
        try:
            if self.folder is None:
                self.folder = tempfile.TemporaryDirectory(prefix="coat-manifest-")
                self.writer = pa.ipc.new_file(str(Path(self.folder.name, "rows")), self.schema)
            self.writer.write_table(concatenate_tables(self.waiting, self.schema))
        except OSError as e:
            raise RunError(
                f"{tempfile.gettempdir()}: cannot hold the rows of a manifest ({e.strerror or e}); point TMPDIR at a "
                "larger disk"
            ) from e
        self.waiting_bytes = 0

    def finish(self) -> pa.Table:
        """All rows. Of one chunk a column where it is in memory."""
        if self.folder is None:
            return concatenate_tables(self.waiting, self.schema)
        if self.waiting:
            self.write()
        self.writer.close()
        with self.folder:  # the mapping outlives the name
            return pa.ipc.open_file(pa.memory_map(str(Path(self.folder.name, "rows")))).read_all()


def take_rows(table: pa.Table, positions: NDArray[np.integer]) -> list[dict[str, Any]]:
    """Rows by their positions; of a table of several chunks only those that are asked for are touched."""
    batches = table.to_batches()
    if len(batches) <= 1:
        return table.take(pa.array(positions)).to_pylist()
    starts = np.cumsum([0, *(len(batch) for batch in batches)])
    of_batch = np.searchsorted(starts, positions, side="right") - 1
    rows: list[dict[str, Any]] = [{}] * len(positions)
    for number in np.unique(of_batch).tolist():
        where = np.flatnonzero(of_batch == number)
        found = batches[number].take(pa.array(positions[where] - starts[number])).to_pylist()
        for at, row in zip(where.tolist(), found, strict=True):
            rows[at] = row
    return rows
