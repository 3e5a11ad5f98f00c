"""CSV and TSV: a header, then a row a line. `.gz` too."""

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from coat.manifests.corpus.reading import open_text
from coat.manifests.errors import InputError, ManifestError, Problem
from coat.manifests.sources.records import Record


def read_csv(path: str) -> Iterator[Record]:
    """A header and rows; commas, semicolons, tabs or bars, whichever the header has most of."""
    encoding = ""
    with open_text(path) as f:
        try:
            encoding = "utf-16" if f.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
            f.seek(0)
            with io.TextIOWrapper(f, encoding, newline="") as lines:
                yield from read_lines(path, lines)
        except UnicodeDecodeError as e:
            raise ManifestError([not_text(path, encoding)]) from e
        except (gzip.BadGzipFile, EOFError, zlib.error) as e:
            raise InputError(f"{path}: not a whole gzip file ({e})") from e


def not_text(path: str, encoding: str) -> Problem:
    """Where it stops being text. All of it is read for that."""
    with open_text(path) as f:
        text = f.read()
    try:
        text.decode(encoding)
    except UnicodeDecodeError as e:
        said = f"not UTF-8 (byte {e.start} of the file); save the file as UTF-8"
        return Problem(path, text.count(b"\n", 0, e.start) + 1, said)
    return Problem(path, 0, "was written anew while it was read; import it again")


def read_lines(path: str, lines: Iterator[str]) -> Iterator[Record]:
    first = next(lines, "").removeprefix("\ufeff")
    stated = re.match(r"sep=(.)\r?\n", first, re.IGNORECASE)  # Excel's
    first = next(lines, "") if stated else first
    header = re.split(r"[\r\n]", first, maxsplit=1)[0]
    delimiter = stated[1] if stated else max(("\t", ",", ";", "|"), key=header.count)
    # Quotes mean nothing in the TSV files of this field (Common Voice): a stray one would swallow rows.
    quoting = csv.QUOTE_NONE if delimiter in "\t|" else csv.QUOTE_MINIMAL
    csv.field_size_limit(1 << 30)
    reader = csv.reader(
        chain([first], lines),
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
