"""The columns of a manifest."""

import json
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import pyarrow as pa

from coat.manifests.corpus.utterance import Utterance

TEXT = pa.large_string()  # a corpus has more than 2 GB of paths
SPAN_SCHEMA = pa.schema(
    [
        pa.field("id", TEXT, nullable=False),
        pa.field("audio_filepath", TEXT, nullable=False),
        pa.field("offset", pa.float64(), nullable=False),
        pa.field("duration", pa.float64()),
        pa.field("row", pa.int32(), nullable=False),
    ]
)
ROW_SCHEMA = pa.schema(
    [
        *SPAN_SCHEMA,
        pa.field("text", TEXT),
        pa.field("prompt", TEXT),
        pa.field("response", TEXT),
        pa.field("choices", pa.list_(TEXT)),
        pa.field("extra", TEXT),  # the row's other keys as one JSON object; null where there are none
        pa.field("audio", TEXT),
    ]
)


def to_table(utterances: Iterable[Utterance], schema: pa.Schema = ROW_SCHEMA) -> pa.Table:
    getters = [column_getter(name) for name in schema.names]
    rows = list(utterances)
    columns = [pa.array([get(u) for u in rows], f.type) for get, f in zip(getters, schema, strict=True)]
    return pa.table(columns, schema=schema)


def column_getter(name: str) -> Callable[[Utterance], Any]:
    if name == "extra":
        return lambda u: json.dumps(dict(u.extra)) if u.extra else None
    return lambda u: getattr(u, name)


def concatenate_tables(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """One table of one chunk a column. Empties the list, so that no more than one column is there twice."""
    held = [[t.column(i).chunks for t in tables] for i in range(len(schema))]
    tables.clear()
    columns = []
    for i, field in enumerate(schema):
        chunks = list(chain.from_iterable(held[i]))
        held[i] = []
        columns.append(pa.concat_arrays(chunks) if chunks else pa.array([], field.type))
        del chunks
    return pa.table(columns, schema=schema)
