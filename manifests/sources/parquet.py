"""Parquet files, of which audio may be a column of bytes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from coat.manifests.errors import InputError
from coat.manifests.sources.records import Record, first_line, numbered, walk

PARQUET_BATCH_ROWS = 64  # embedded audio: a batch is held in memory


def read_parquet(path: str) -> Iterator[Record]:
    """A parquet file, or all that lie below a folder."""
    found = sorted(f for f in walk(Path(path)) if f.suffix == ".parquet") if os.path.isdir(path) else [Path(path)]
    for file in found:
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                batches = table.iter_batches(PARQUET_BATCH_ROWS)
                yield from numbered(str(file), (record for batch in batches for record in batch.to_pylist()))
        except FileNotFoundError as e:
            raise InputError(f"{file}: no such file") from e
        except pyarrow.ArrowException as e:
            raise InputError(f"{file}: not a whole parquet file ({first_line(e)})") from e
