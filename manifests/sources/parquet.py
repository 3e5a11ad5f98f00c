"""Parquet files, of which audio may be a column of bytes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from coat.manifests.errors import InputError
from coat.manifests.sources.records import Record, first_line, numbered, split_of, walk

PARQUET_BATCH_ROWS = 64  # embedded audio: a batch is held in memory


def has_parquet(folder: Path) -> bool:
    """Also somewhere below it. `metadata.parquet` says something of the audio files that lie beside it."""
    return any(file.suffix == ".parquet" and file.name != "metadata.parquet" for file in walk(folder))


def read_parquet(path: str) -> Iterator[Record]:
    """A parquet file, or all that lie below a folder, whose rows get the `split` that their names say."""
    notes: list[str] = []
    is_folder = os.path.isdir(path)
    found = sorted(f for f in walk(Path(path), notes) if f.suffix == ".parquet") if is_folder else [Path(path)]
    yield from (Record(path, 0, note=note) for note in notes)
    for file in found:
        split = split_of(file.relative_to(path)) if is_folder else ""
        own = {"split": split} if split else {}
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                batches = table.iter_batches(PARQUET_BATCH_ROWS)
                yield from numbered(str(file), (own | record for batch in batches for record in batch.to_pylist()))
        except FileNotFoundError as e:
            raise InputError(f"{file}: no such file") from e
        except pyarrow.ArrowException as e:
            raise InputError(f"{file}: not a whole parquet file ({first_line(e)})") from e
