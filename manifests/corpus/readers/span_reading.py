"""The fast reader of the spans in JSON lines: Arrow's, for blocks that it fully understands.

What it does not (mixed types, repeated keys, several objects on a line, ...) is left to the exact reader. It does not
look into keys that coat does not know, which are not kept then.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.json as pj

from coat.manifests import addresses, storage
from coat.manifests.corpus.columns import SPAN_SCHEMA, TEXT
from coat.manifests.corpus.parsing import LONGEST_S

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
TEXTS = ("audio_filepath", "text", "prompt", "response", "question", "answer")
EXPECTED_TYPES = [
    *((name, pa.string()) for name in TEXTS),
    ("offset", pa.float64()),
    ("duration", pa.float64()),
    ("choices", pa.list_(pa.string())),
]


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
    if not valid_paths(found["audio_filepath"]):
        return False
    if not all(valid_times(found[name].drop_null().to_numpy()) for name in ("offset", "duration")):
        return False
    return not pc.list_flatten(found["choices"]).null_count


def valid_paths(paths: Any) -> bool:
    if paths.null_count or pc.any(pc.equal(paths, "")).as_py():
        return False
    urls = paths.filter(pc.match_substring(paths, "://"))
    if len(urls) and (
        pc.any(pc.match_substring(urls, "::")).as_py() or not all_match(urls, f"^({'|'.join(storage.protocols())})://")
    ):
        return False
    return addresses.all_usual(paths)


def valid_times(seconds: np.ndarray) -> bool:
    return bool((np.abs(seconds) <= LONGEST_S).all())


def all_match(texts: Any, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern)).as_py())
