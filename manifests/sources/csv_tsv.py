"""CSV and TSV: a header, then a row a line."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.sources.records import Record


def read_csv(path: str) -> Iterator[Record]:
    """A header and rows; commas, semicolons or tabs, whichever the header has most of."""
    text = storage.read_bytes(path)
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        row = text.count(b"\n", 0, e.start) + 1
        yield Record(path, row, problem=f"not UTF-8 (byte {e.start} of the file); save the file as UTF-8")
        return
    header = decoded.split("\n", 1)[0]
    delimiter = max(("\t", ",", ";"), key=header.count)
    # Quotes mean nothing in the TSV files of this field (Common Voice): a stray one would swallow rows.
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(io.StringIO(decoded, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        yield from csv_records(path, reader, quoting == csv.QUOTE_NONE)
    except csv.Error as e:  # a quote that is never closed takes all that follows with it
        yield Record(path, reader.line_num, problem=f"not CSV here or above ({e}); check the quotes")


def csv_records(path: str, reader: "csv.DictReader[str]", as_written: bool) -> Iterator[Record]:
    names = reader.fieldnames or ()
    if twice := [n for n, times in Counter(names).items() if times > 1 and n]:
        raise InputError(f"{path}: columns named twice: {', '.join(twice)}; rename one")
    width = len(names)
    for values in reader:
        if None in values or any(v is None for v in values.values()):
            got = sum(v is not None for k, v in values.items() if k is not None) + len(values.get(None) or ())
            yield Record(path, reader.line_num, problem=f"{got} fields; expected {width} as in the header")
            continue
        yield Record(path, reader.line_num, {k: unquote(v) if as_written else v for k, v in values.items() if k})


def unquote(value: str) -> str:
    """A field that is quoted as a whole, its inner quotes doubled, as pandas writes TSV."""
    return value[1:-1].replace('""', '"') if re.fullmatch(r'"(?:[^"]|"")*"', value) else value
