"""Manifests in Parquet: columns with the names of the keys of a row; what is null is not there.

As of JSON lines there are two readers. The fast one takes the columns of a span. A batch of which it is not sure goes
to the exact one, which takes row by row and explains what is wrong.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from coat.manifests import storage
from coat.manifests.addresses.parquet_cell import open_table
from coat.manifests.corpus.columns import SPAN_SCHEMA, TEXT, to_table
from coat.manifests.corpus.parsing import finite, parse_row
from coat.manifests.corpus.readers.span_reading import valid_paths, valid_times
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError, NoAccess, Problem, one_line

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
SPANS_AT_ONCE, ROWS_AT_ONCE = 65536, 2048
SPAN_KEYS = ("id", "audio_filepath", "offset", "duration")
TEXTS = ("text", "prompt", "response", "question", "answer")


def read_parquet(url: str, base: str, schema: pa.Schema) -> Iterator[tuple[pa.Table, list[Problem], int]]:
    """Batch by batch: what can be read, a problem for each row that cannot, and how many rows that was.

    InputError where the file is not a whole table with a column `audio_filepath`.
    """
    with reading(url), open_table(url) as table:
        names = table.schema_arrow.names
        if "audio_filepath" not in names or len(set(names)) < len(names):
            has = ", ".join(names)[:200]
            raise InputError(f"{url}: no manifest, which has one column audio_filepath (here: {has}); import it")
        exact = ExactRows(table)
        done = 0
        if schema is not SPAN_SCHEMA or not is_usual(table.schema_arrow):
            for first in range(0, table.metadata.num_rows, ROWS_AT_ONCE):
                yield exact_table(exact, url, base, schema, first, min(ROWS_AT_ONCE, table.metadata.num_rows - first))
            return
        keys = [name for name in SPAN_KEYS if name in names]
        for batch in table.iter_batches(SPANS_AT_ONCE, columns=keys, use_threads=False):
            found = span_table(batch, done)
            if found is None:
                yield exact_table(exact, url, base, schema, done, len(batch))
            else:
                yield found, [], len(batch)
            done += len(batch)


@contextlib.contextmanager
def reading(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as e:
        raise InputError(f"{url}: no such manifest") from e
    except (IsADirectoryError, PermissionError) as e:
        raise NoAccess(storage.no_access(url, e)) from e
    except InputError:
        raise
    except (pa.ArrowException, ValueError) as e:  # UnicodeDecodeError, too
        raise InputError(f"{url}: cannot be read as a manifest ({one_line(e, 200)})") from e
    except OSError as e:
        if e.errno is not None:
            raise
        raise InputError(f"{url}: not a whole Parquet table ({one_line(e, 200)})") from e


def is_usual(schema: pa.Schema) -> bool:
    """Whether the columns that the fast reader does not look into have types that need no look."""
    for name in ("audio_filepath", *TEXTS):
        if name in schema.names and not is_text(schema.field(name).type):
            return False
    for name in ("offset", "duration"):
        kind: Any = schema.field(name).type if name in schema.names else pa.float64()
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            return False
    identity: Any = schema.field("id").type if "id" in schema.names else pa.string()
    return "choices" not in schema.names and (is_text(identity) or pa.types.is_integer(identity))


def is_text(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def span_table(batch: pa.RecordBatch, first: int) -> pa.Table | None:
    """None where the exact reader must look: rows of text alone, paths and times that are none."""

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return batch.column(name).cast(kind) if name in batch.schema.names else pa.nulls(len(batch), kind)

    paths, ids = column("audio_filepath", TEXT), pc.fill_null(column("id", TEXT), "")
    if not valid_paths(paths):
        return None
    for texts in (paths, ids):
        texts.validate(full=True)  # UTF-8
    offset, duration = (column(name, pa.float64()).to_numpy(zero_copy_only=False) for name in ("offset", "duration"))
    if not (valid_times(offset[~np.isnan(offset)]) and valid_times(duration[~np.isnan(duration)])):
        return None
    return pa.table(
        [
            ids,
            paths,
            pa.array(np.nan_to_num(offset) + 0.0),  # -0.0 is 0.0
            pa.array(duration + 0.0, mask=np.isnan(duration)),
            pa.array(np.arange(first + 1, first + len(batch) + 1), pa.int32()),
        ],
        schema=SPAN_SCHEMA,
    )


def exact_table(
    exact: "ExactRows", url: str, base: str, schema: pa.Schema, first: int, count: int
) -> tuple[pa.Table, list[Problem], int]:
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for row, values in enumerate(exact.rows(first, count), start=first + 1):
        try:
            utterances.append(parse_row(values, base, row))
        except ValueError as e:
            problems.append(Problem(url, row, str(e)))
    return to_table(utterances, schema), problems, count


class ExactRows:
    """Rows with all their columns, from the first to the last; those between are passed over."""

    def __init__(self, table: pyarrow.parquet.ParquetFile) -> None:
        self.batches = table.iter_batches(ROWS_AT_ONCE, use_threads=False)
        self.held: list[pa.RecordBatch] = []
        self.at = 0  # the row that `held` begins with

    def rows(self, first: int, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < count:
            batch = self.held.pop() if self.held else next(self.batches)
            start = min(max(first + len(found) - self.at, 0), len(batch))
            taken = batch.slice(start, count - len(found))
            found += map(row_of, taken.to_pylist())
            left = batch.slice(start + len(taken))
            self.at += len(batch) - len(left)
            if len(left):
                self.held = [left]
        return found


def row_of(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it. Without a path it is a row of text alone."""
    found = {name: json_value(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None or name == "audio_filepath"}


def json_value(value: Any) -> Any:
    """Bytes are no value, dates are text as of ISO."""
    if value is None or isinstance(value, bool | int | float | str):
        return finite(value)
    if isinstance(value, dict):
        return {str(k): json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(v) for v in value]
    if isinstance(value, bytes):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
