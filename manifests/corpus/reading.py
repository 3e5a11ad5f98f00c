"""Reading a manifest file, block by block, into columns.

Two readers give the same columns. The exact one parses line by line and explains what is wrong. Where
only the spans are asked for, Arrow's reader comes first; a block that it does not fully understand
(mixed types, repeated keys, several objects on a line, ...) goes to the exact one. It does not look
into keys that coat does not know, which are not kept then.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.json as pj

from coat.manifests import storage
from coat.manifests.corpus.columns import ROW_SCHEMA, SPAN_SCHEMA, TEXT, concatenate_tables, fill_missing_ids, to_table
from coat.manifests.corpus.parsing import LONGEST_S, parse_row
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError, Problem

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
READ_BYTES = 4 * 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ALLOWED_URL = f"^({'|'.join(storage.PROTOCOLS)})://"  # URLs that may be opened

TEXTS = ("audio_filepath", "text", "prompt", "response", "question", "answer")
EXPECTED_TYPES = [
    *((name, pa.string()) for name in TEXTS),
    ("offset", pa.float64()),
    ("duration", pa.float64()),
    ("choices", pa.list_(pa.string())),
]


def read_table(path: str, spans: bool) -> tuple[pa.Table, list[Problem]]:
    """Columns (SPANS or ROWS) of the rows that can be read, and a problem for each that cannot.

    InputError where there is no file, or it is no text.
    """
    base = storage.parent(storage.absolute(path))
    schema = SPAN_SCHEMA if spans else ROW_SCHEMA
    tables: list[pa.Table] = []
    problems: list[Problem] = []
    line = 1
    for block in read_blocks(path):
        table = read_spans(block, line) if spans else None
        if table is None:
            utterances, found = parse_block(block, path, base, line)
            table = to_table(utterances, schema)
            problems += found
        tables.append(table)
        line += block.count(b"\n")
    table = concatenate_tables(tables, schema)
    if not len(table) and not problems:
        problems.append(Problem(path, 0, "no rows; expected one JSON object a line"))
    pa.default_memory_pool().release_unused()  # what the blocks took
    return fill_missing_ids(table), problems


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
    fs, inside = storage.filesystem(path)
    f = cast(BinaryIO, fs.open(inside, "rb"))
    return cast(BinaryIO, gzip.GzipFile(fileobj=f)) if path.endswith(".gz") else f


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


def read_lines(path: str, problems: list[Problem]) -> Iterator[tuple[int, str]]:
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


def read_spans(block: bytes, first_line: int) -> pa.Table | None:
    """SPANS of a block through Arrow, or None where that is not sure to give what `parse_block` gives."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
    numbers = line_numbers(block, first_line)
    if numbers is None:
        return None
    found = read_objects(block)
    if found is None or len(found) != len(numbers) or not is_valid(found):
        return None
    offset, duration = (found[name].to_numpy() for name in ("offset", "duration"))
    missing = found["duration"].is_null().combine_chunks()
    return pa.table(
        [
            pc.fill_null(found["id"], "").cast(TEXT).combine_chunks(),
            found["audio_filepath"].cast(TEXT).combine_chunks(),
            pa.array(np.nan_to_num(offset) + 0.0),  # -0.0 is 0.0
            pa.array(duration + 0.0, mask=missing.to_numpy(zero_copy_only=False)),
            pa.array(numbers, pa.int32()),
        ],
        schema=SPAN_SCHEMA,
    )


def line_numbers(block: bytes, first_line: int) -> np.ndarray | None:
    """Of the lines that hold something; None unless each begins with { and ends with }, and all is UTF-8.

    Arrow takes objects wherever they end. Where all lines look like that, and there are as many objects
    as lines, then there is one on each: no `}` and `{` follow each other inside an object.
    """
    try:
        block.decode()
    except UnicodeDecodeError:
        return None
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1] + 1])
    filled = np.flatnonzero(starts < ends)
    if (data[starts[filled]] != ord("{")).any() or (data[ends[filled] - 1] != ord("}")).any():
        return None
    return filled + first_line


def read_objects(block: bytes) -> pa.Table | None:
    """Known keys as columns of their types; ids may be strings, or numbers throughout."""
    for id_type in (pa.string(), pa.int64()):
        schema = pa.schema([("id", id_type), *EXPECTED_TYPES])
        options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        try:
            table = pj.read_json(pa.BufferReader(block), parse_options=options)
        except pa.ArrowException:
            continue
        return table.set_column(0, "id", table["id"].cast(pa.string()))
    return None


def is_valid(found: pa.Table) -> bool:
    """Whether `parse_row` would find nothing to object to."""
    paths: Any = found["audio_filepath"]
    if paths.null_count or pc.any(pc.equal(paths, "")).as_py():
        return False
    urls = paths.filter(pc.match_substring(paths, "://"))
    if len(urls) and (pc.any(pc.match_substring(urls, "::")).as_py() or not all_match(urls, ALLOWED_URL)):
        return False
    times = (found[name].drop_null().to_numpy() for name in ("offset", "duration"))
    if not all((np.abs(t) <= LONGEST_S).all() for t in times):
        return False
    return not pc.list_flatten(found["choices"]).null_count


def all_match(texts: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern)).as_py())
