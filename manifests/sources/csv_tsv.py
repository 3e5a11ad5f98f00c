"""CSV and TSV: a header, then a row a line."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.sources.records import Record


def read_csv(path: str) -> Iterator[Record]:
    """A header and rows; commas, semicolons, tabs or bars, whichever the header has most of."""
    text = storage.read_bytes(path)
    encoding = "utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        decoded = text.decode(encoding)
    except UnicodeDecodeError as e:
        row = text.count(b"\n", 0, e.start) + 1
        yield Record(path, row, problem=f"not UTF-8 (byte {e.start} of the file); save the file as UTF-8")
        return
    decoded = decoded.removeprefix("\ufeff")
    stated = re.match(r"sep=(.)\r?\n", decoded, re.IGNORECASE)  # Excel's
    decoded = decoded[stated.end() :] if stated else decoded
    header = re.split(r"[\r\n]", decoded, maxsplit=1)[0]
    delimiter = stated[1] if stated else max(("\t", ",", ";", "|"), key=header.count)
    # Quotes mean nothing in the TSV files of this field (Common Voice): a stray one would swallow rows.
    quoting = csv.QUOTE_NONE if delimiter in "\t|" else csv.QUOTE_MINIMAL
    csv.field_size_limit(1 << 30)
    reader = csv.reader(
        io.StringIO(decoded, newline=""),
        delimiter=delimiter,
        quoting=quoting,
        strict=True,
        skipinitialspace=f"{delimiter} " in header,  # blanks after delimiters, then, are no part of the values
    )
    skipped = 1 if stated else 0
    try:
        yield from csv_records(path, reader, quoting == csv.QUOTE_NONE, skipped)
    except csv.Error as e:  # a quote that is never closed takes all that follows with it
        yield Record(path, reader.line_num + skipped, problem=f"not CSV here or above ({e}); check the quotes")


def csv_records(path: str, reader: Any, as_written: bool, skipped: int) -> Iterator[Record]:
    names = [unquote(name).strip() for name in next(reader, [])]
    names = [name or f"unnamed_{i}" for i, name in enumerate(names)]  # the index of a pandas table, say
    if twice := [n for n, times in Counter(names).items() if times > 1]:
        raise InputError(f"{path}: columns named twice: {', '.join(twice)}; rename one")
    for fields in reader:
        row = reader.line_num + skipped
        if not fields:
            continue
        if len(fields) != len(names):
            yield Record(path, row, problem=f"{len(fields)} fields; expected {len(names)} as in the header")
            continue
        values = [unquote(v) for v in fields] if as_written else fields
        yield Record(path, row, dict(zip(names, values, strict=True)))


def unquote(value: str) -> str:
    """A field that is quoted as a whole, its inner quotes doubled, as pandas writes TSV."""
    return value[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', value) else value
