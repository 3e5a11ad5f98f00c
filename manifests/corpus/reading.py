"""Reading a manifest, part by part and block by block, into columns.

Two readers give the same columns. The exact one, here, parses line by line and explains what is wrong. Where only the
spans are asked for, Arrow's reader (`readers/span_reading`) comes first; a block that it does not fully understand goes
to the exact one. Parts in Parquet have readers of their own (`readers/parquet_rows`).
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute

from coat.manifests import storage
from coat.manifests.corpus.columns import ROW_SCHEMA, SPAN_SCHEMA, to_table
from coat.manifests.corpus.default_ids import fill_missing_ids
from coat.manifests.corpus.parsing import parse_row
from coat.manifests.corpus.readers.parquet_rows import read_parquet
from coat.manifests.corpus.readers.parts import MOST_ROWS, Parts, find_parts, named_from
from coat.manifests.corpus.readers.span_reading import read_spans
from coat.manifests.corpus.table_spool import TableSpool
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError, Problem

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
READ_BYTES = 4 * 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_table(path: str, spans: bool, on_disk: bool = False) -> tuple[pa.Table, list[Problem], Parts]:
    """Columns (SPANS or ROWS) of the rows that can be read, a problem for each that cannot, and where they lie.

    `on_disk`: what is large is mapped from a temporary file, in several chunks a column. InputError where there is no
    file, or it is no text.
    """
    base, urls = find_parts(path)
    schema = SPAN_SCHEMA if spans else ROW_SCHEMA
    rows = TableSpool(schema, on_disk)
    problems: list[Problem] = []
    firsts: list[int] = []
    first = 0
    for url in urls:
        firsts.append(first)
        folder = storage.parent(storage.absolute(url))
        read = read_parquet if url.endswith(".parquet") else read_json_lines
        for table, found, lines in read(url, folder, schema):
            if first + lines > MOST_ROWS:
                raise InputError(f"{path}: more than {MOST_ROWS:,} rows; name fewer parts")
            rows.add(placed(table, firsts[-1], base, folder))
            problems += found
            first += lines
    table = rows.finish()
    if not len(table) and not problems:
        problems.append(Problem(path, 0, "no rows; expected one JSON object a line"))
    pa.default_memory_pool().release_unused()  # what the blocks took
    return fill_missing_ids(table), problems, Parts(base, tuple(urls), tuple(firsts))


def placed(table: pa.Table, first: int, base: str, folder: str) -> pa.Table:
    """Rows of a part, as they stand in the whole."""
    at = table.schema.get_field_index("audio_filepath")
    if folder != base:
        paths = named_from(base, folder, table.column(at))
        table = table.set_column(at, table.schema.field(at), paths)
    if first:
        at = table.schema.get_field_index("row")
        table = table.set_column(at, table.schema.field(at), pc.add(table.column(at), pa.scalar(first, pa.int32())))
    return table


def read_json_lines(path: str, base: str, schema: pa.Schema) -> Iterator[tuple[pa.Table, list[Problem], int]]:
    """Block by block: what can be read, a problem for each row that cannot, and how many lines that was."""
    line = 1
    for block in read_blocks(path):
        table, found = read_spans(block, line) if schema is SPAN_SCHEMA else None, []
        if table is None:
            utterances, found = parse_block(block, path, base, line)
            table = to_table(utterances, schema)
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        yield table, found, lines
        line += lines


def read_blocks(path: str) -> Iterator[bytes]:
    """The file in blocks of whole lines; the last may lack its line end."""
    try:
        with open_text(path) as f:
            parts, first = [], True
            while data := f.read(READ_BYTES):
                if first and b"\0" in data[:1024]:
                    raise InputError(f"{path}: not a text file; expected JSONL, one object a line")
                data, first = data.removeprefix(BYTE_ORDER_MARK) if first else data, False
                end = data.rfind(b"\n") + 1
                if end:
                    yield b"".join([*parts, data[:end]])
                    parts = []
                parts.append(data[end:])
            if any(parts):
                yield b"".join(parts)
    except FileNotFoundError as e:
        raise InputError(f"{path}: no such manifest") from e
    except (IsADirectoryError, PermissionError) as e:
        raise InputError(f"{path}: cannot be read as a manifest ({e.strerror or e})") from e
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise InputError(f"{path}: not a whole gzip file ({e})") from e


def open_text(path: str) -> BinaryIO:
    f = storage.open_stream(path)
    if not path.endswith(".gz"):
        return f
    unpacked = gzip.GzipFile(fileobj=f)
    unpacked.myfileobj = f  # pyright: ignore  closed with it, as in gzip.open
    return cast(BinaryIO, unpacked)


def parse_block(block: bytes, path: str, base: str, first_line: int) -> tuple[list[Utterance], list[Problem]]:
    """The exact reader: row by row, with a problem for each that is not one. Ids may be empty."""
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for row, line in block_lines(block, path, first_line, problems):
        try:
            utterances.append(parse_row(json.loads(line), base, row))
        except json.JSONDecodeError as e:
            problems.append(Problem(path, row, f"not JSON ({e.msg} at column {e.colno}); expected one object a line"))
        except RecursionError:
            problems.append(Problem(path, row, "not JSON that can be read (nested too deep)"))
        except ValueError as e:
            problems.append(Problem(path, row, str(e)))
    return utterances, sorted(problems, key=lambda p: p.row)


def numbered_lines(path: str, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    """Numbered lines that hold something; what is not UTF-8 or was half written goes to `problems`."""
    first_line = 1
    for block in read_blocks(path):
        yield from block_lines(block, path, first_line, problems)
        first_line += block.count(b"\n")


def block_lines(block: bytes, path: str, first_line: int, problems: list[Problem]) -> Iterator[tuple[int, str]]:
    lines = block.split(b"\n")
    for row, raw in enumerate(lines, start=first_line):
        if not raw.strip():
            continue
        try:
            line = raw.decode()
        except UnicodeDecodeError as e:
            problems.append(Problem(path, row, f"not UTF-8 (byte {e.start} of the line); save the file as UTF-8"))
            continue
        if row == first_line + len(lines) - 1 and not is_json(line):  # the file's last, without an end
            problems.append(Problem(path, row, "the last line is half written; write the manifest again or drop it"))
            continue
        yield row, line


def is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
