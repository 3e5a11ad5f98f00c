"""`samples.parquet` of a shard set or a sidecar: a row per sample in the order of the tars, with frames by expert."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from coat.manifests import storage
from coat.manifests.errors import InputError

SAMPLES_NAME = "samples.parquet"
SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),  # its place in index.json
        pa.field("key", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),  # Utterance.digest: what was asked for
        pa.field("source", pa.string()),  # Clip.digest: what was heard; null where it was not decoded
        pa.field("offset", pa.int64(), nullable=False),  # of its first header in the tar
        pa.field("length", pa.int64(), nullable=False),  # bytes, headers and padding too
        pa.field("duration", pa.float64(), nullable=False),  # seconds of audio
        pa.field("start", pa.float64(), nullable=False),  # seconds from the start of its utterance
        pa.field("whole", pa.bool_(), nullable=False),  # false: a piece of an utterance that was cut
        pa.field("characters", pa.int32(), nullable=False),  # of text, prompt and response
    ]
)
SIDECAR_SAMPLE_SCHEMA = pa.schema([SAMPLE_SCHEMA.field(n) for n in ("shard", "key", "offset", "length")])


def samples_schema(experts: Mapping[str, Any] | list[str], base: pa.Schema = SAMPLE_SCHEMA) -> pa.Schema:
    """With a column `frames.<expert>` each; null where a sample has no target of it."""
    return pa.schema([*base, *(pa.field(f"frames.{name}", pa.int32()) for name in experts)])


def read_samples_table(path: str, xxh3: str) -> pa.Table:
    """InputError where it is not the one that the index was written for."""
    url = storage.join(path, SAMPLES_NAME)
    try:
        data = storage.read_bytes(url)
    except FileNotFoundError as e:
        raise InputError(f"{url}: no such file; build the shards again, or copy the whole folder") from e
    if xxhash.xxh3_128_hexdigest(data) != xxh3:
        raise InputError(f"{url}: does not have the digest of index.json; build the shards again, or copy it again")
    return pq.read_table(pa.BufferReader(data), use_threads=False)


def write_samples_table(path: str, table: pa.Table) -> str:
    """Write it and give its digest."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    storage.write_bytes(storage.join(path, SAMPLES_NAME), data)
    return xxhash.xxh3_128_hexdigest(data)
