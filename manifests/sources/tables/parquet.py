"""Parquet files, of which audio may be a column of bytes. Those are not read here: a row has their address.

Which rows have bytes is told by the counts of nulls in the file's metadata. Where only some rows of a row group have
them, or it has no such counts, the column is read once, for that alone.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from coat.manifests import storage
from coat.manifests.addresses import ParquetCell
from coat.manifests.addresses.parquet_cell import is_binary, is_list, open_table
from coat.manifests.errors import InputError, NoAccess
from coat.manifests.sources.column_names import Columns
from coat.manifests.sources.records import Record, StoredBytes, first_line, split_of, walk

ROWS_AT_ONCE = 4096  # at most
BYTES_AT_ONCE = 8 * 2**20  # of columns that are read; a batch is held as Python's objects
BYTE_ROWS_AT_ONCE = 16  # where columns of bytes are read

Leaf = tuple[str, ...]  # names from the column down
Mark = dict[Leaf, str]  # leaves whose bytes are not read: their column in the file


def has_parquet(folder: str) -> bool:
    """Also somewhere below it. `metadata.parquet` says something of the audio files that lie beside it."""
    return any(Path(url).name != "metadata.parquet" for url, _ in tables_below(folder, ".parquet", []))


def read_parquet(path: str) -> Iterator[Record]:
    """A parquet file, or all that lie below a folder, whose rows get the `split` that their names say."""
    notes: list[str] = []
    found = tables_below(path, ".parquet", notes)
    yield from (Record(path, 0, note=note) for note in notes)
    for url, relative in found:
        yield from read_table(url, split_of(relative) if relative else "")


def count_rows(path: str) -> int:
    """Of all tables; each one's footer is read."""
    with reading(path, "Parquet"):
        urls = [url for url, _ in tables_below(path, ".parquet", [])]
        return sum(storage.in_parallel(rows_in, urls, 16))


def rows_in(url: str) -> int:
    with reading(url, "Parquet"), open_table(url) as table:
        return table.metadata.num_rows


def tables_below(path: str, suffix: str, notes: list[str]) -> list[tuple[str, Path | None]]:
    """The file, or those below a folder with their place in it."""
    if storage.is_local(path):
        top = storage.local_path(path)
        if not top.is_dir():
            return [(path, None)]
        return [(str(f), f.relative_to(top)) for f in sorted(f for f in walk(top, notes) if f.suffix == suffix)]
    if storage.is_file(path):
        return [(path, None)]
    return [(f, Path(f.removeprefix(path.rstrip("/") + "/"))) for f in storage.files_below(path, (suffix,))]


def read_table(url: str, split: str) -> Iterator[Record]:
    own: dict[str, Any] = {"split": split} if split else {}
    with reading(url, "Parquet"):
        stamp = storage.info(url).stamp
        with open_table(url) as table:
            columns = stated_columns(url, table.schema_arrow)
            row = 0
            for group in range(table.num_row_groups):
                for values in group_rows(table, storage.absolute(url), group):
                    row += 1
                    yield Record(url, row, {**own, **values}, columns=columns)
        check_unchanged(url, stamp)


@contextlib.contextmanager
def reading(url: str, form: str) -> Iterator[None]:
    """InputError, with the file's name, for what a table may have."""
    try:
        yield
    except FileNotFoundError as e:
        raise InputError(f"{url}: no such file") from e
    except PermissionError as e:
        raise NoAccess(storage.no_access(url, e)) from e
    except InputError:
        raise
    except pa.ArrowException as e:
        raise InputError(f"{url}: not a whole {form} file ({first_line(e)})") from e
    except ValueError as e:  # of addresses
        raise InputError(f"{url}: {first_line(e)}") from e
    except OSError as e:
        if e.errno is not None:
            raise
        raise InputError(f"{url}: not a whole {form} file ({first_line(e)})") from e


def check_unchanged(url: str, stamp: str) -> None:
    if storage.info(url).stamp != stamp:
        raise InputError(f"{url}: was written anew while it was read; import it again")


def stated_columns(url: str, schema: pa.Schema) -> dict[str, str]:
    """What the features of Hugging Face in a table say: which column is audio. Empty where they leave a choice that
    its name does not settle. InputError where columns have one name.
    """
    if twice := [name for name, times in Counter(schema.names).items() if times > 1]:
        raise InputError(f"{url}: columns named twice: {', '.join(twice)}; rename one")
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        audio = [name for name, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "Audio"]
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    named = Columns.detect(schema.names, {}).column_of_key.get("audio_filepath")
    return {"audio_filepath": audio[0]} if len(audio) == 1 and named not in audio else {}


def group_rows(table: pyarrow.parquet.ParquetFile, url: str, group: int) -> Iterator[Mapping[str, Any]]:
    """Rows of a row group, with StoredBytes where bytes are."""
    schema, metadata = table.schema_arrow, table.metadata.row_group(group)
    marks: Mark = {}  # told by the metadata
    wanted: list[str] = []
    nbytes, has_bytes = 0, False
    leaves = [leaf for field in schema for leaf in leaves_of(field.type, (field.name,))]
    paths = {leaf: metadata.column(i).path_in_schema for i, (leaf, _, _) in enumerate(leaves)}
    others = {leaf[0] for leaf, kind, _ in leaves if not is_binary(kind)}
    empty: set[Leaf] = set()
    for i, (leaf, kind, in_list) in enumerate(leaves):
        counts = metadata.column(i).statistics
        nulls = counts.null_count if counts is not None and counts.has_null_count else None
        if is_binary(kind) and nulls == 0 and not (in_list and leaf[0] not in others):
            marks[leaf] = paths[leaf]
        elif is_binary(kind) and nulls == metadata.num_rows and not in_list:
            empty.add(leaf)
        else:
            wanted.append(paths[leaf])
            nbytes += metadata.column(i).total_uncompressed_size
            has_bytes = has_bytes or is_binary(kind)
    at_once = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE * metadata.num_rows // max(nbytes, 1)))
    at_once = min(at_once, BYTE_ROWS_AT_ONCE) if has_bytes else at_once
    first = 0
    for batch in batches_of(table, group, wanted, at_once, metadata.num_rows):
        rows = range(first, first + batch.num_rows)
        first = rows.stop
        columns: list[list[Any]] = []
        for field in schema:
            held = batch.column(field.name).to_pylist() if field.name in batch.schema.names else [None] * len(rows)
            own = [leaf for leaf, kind, _ in leaves if leaf[0] == field.name and is_binary(kind)]
            if own:
                cells = {leaf: str(ParquetCell(url, group, paths[leaf], 0)).removesuffix("0") for leaf in own}
                held = [
                    completed(field.type, value, (field.name,), row, cells, marks)
                    for value, row in zip(held, rows, strict=True)
                ]
            columns.append(held)
        yield from (dict(zip(schema.names, values, strict=True)) for values in zip(*columns, strict=True))
    if first != metadata.num_rows:
        raise InputError(f"{url}: not a whole Parquet file (row group {group} has {first} of {metadata.num_rows} rows)")


def batches_of(
    table: pyarrow.parquet.ParquetFile, group: int, wanted: list[str], at_once: int, rows: int
) -> Iterator[pa.RecordBatch]:
    if wanted:
        yield from table.iter_batches(at_once, row_groups=[group], columns=wanted, use_threads=False)
        return
    for first in range(0, rows, ROWS_AT_ONCE):  # all that it has is bytes
        nothing = pa.nulls(min(ROWS_AT_ONCE, rows - first))
        yield pa.RecordBatch.from_arrays([nothing], [""])


def leaves_of(kind: Any, names: Leaf, in_list: bool = False) -> Iterator[tuple[Leaf, Any, bool]]:
    """Columns of the file, in its order, each with its type, and whether it lies in a list."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if pa.types.is_struct(kind):
        for field in kind:
            yield from leaves_of(field.type, (*names, field.name), in_list)
    elif pa.types.is_map(kind):
        yield from leaves_of(kind.key_type, (*names, "key"), True)
        yield from leaves_of(kind.item_type, (*names, "value"), True)
    elif is_list(kind):
        yield from leaves_of(kind.value_type, (*names, "element"), True)
    else:
        yield names, kind, in_list


def completed(kind: Any, value: Any, leaf: Leaf, row: int, cells: Mapping[Leaf, str], marks: Mark) -> Any:
    """A value that was read, with the address of its cell where there are bytes. `cells`: addresses but for the row.

    Of a list only the first has one, so that a list of several is refused, and is told by its length alone.
    """
    if leaf in cells:
        return StoredBytes(f"{cells[leaf]}{row}") if leaf in marks or value else value
    if pa.types.is_struct(kind):
        if value is None and not any(mark[: len(leaf)] == leaf for mark in marks):
            return None
        inner = value or {}
        return {f.name: completed(f.type, inner.get(f.name), (*leaf, f.name), row, cells, marks) for f in kind}
    if is_list(kind) and isinstance(value, list):
        return [completed(kind.value_type, v, (*leaf, "element"), row, cells, marks) for v in value]
    return value
