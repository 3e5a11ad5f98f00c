"""One committed unit, read back: files, digests, shapes, finite values, rows that tile the frames."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import zarr

from coat.manifests import storage
from coat.manifests.errors import RunError, Unreachable
from coat.pipeline.store.frames_reader import open_array
from coat.pipeline.store.layout import ARRAY, DONE, FRAMES, ROWS
from coat.pipeline.store.rows import ROWS_SCHEMA, UNIT_SCHEMA
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_writer import done_digest

BLOCK_FRAMES = 65536  # read at a time when values are checked


def check_unit(targets: TargetSet, unit: str) -> dict[str, Any]:
    """The done.json of an intact unit; RunError says what is wrong with one that is not."""
    done = targets.read_done(unit)
    if done is None:
        raise RunError("no done.json; a commit was cut off, and its rows are not counted as done")
    targets.writers[unit] = str(done.get("writer", ""))
    if (
        storage.read_bytes(targets.unit_url(unit, DONE)) != storage.to_json(done)
        or done_digest(done) != done["done_xxh3"]
    ):
        raise RunError(f"{DONE} does not have its own digest; it was changed after the commit")
    check_rows(targets, unit, done["rows_xxh3"])
    rows = targets.read_rows(unit)
    if len(rows) != done["rows"]:
        raise RunError(f"{len(rows)} rows, done.json says {done['rows']}")
    check_array(targets, unit, done["array_xxh3"])
    array = open_frames_array(targets, unit)
    if array.shape != (done["frames"], targets.spec.dim) or array.dtype != np.dtype(targets.spec.dtype):
        raise RunError(f"frames are {array.dtype} {list(array.shape)}; expected {targets.spec.dtype}, {done['frames']}")
    first = 0
    for row in rows:
        if row.first != first or (row.frames > 0) != (row.status == "ok"):
            raise RunError(f"row {row.id!r}: frames {row.first}+{row.frames} with status {row.status} do not tile")
        first += row.frames
    if first != done["frames"]:
        raise RunError(f"rows hold {first} frames, done.json says {done['frames']}")
    digest = xxhash.xxh3_128()
    for block in read_blocks(targets.unit_url(unit, FRAMES), array):
        if not np.isfinite(block).all():
            raise RunError("values that are not finite")
        digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    if digest.hexdigest() != done["xxh3"]:
        raise RunError("frames do not have the digest of done.json; the data were changed after the commit")
    return done


def check_rows(targets: TargetSet, unit: str, expected: str) -> None:
    try:
        data = storage.read_bytes(targets.unit_url(unit, ROWS))
        if xxhash.xxh3_128_hexdigest(data) != expected:
            raise RunError(f"{ROWS} does not have the digest of done.json; it was changed after the commit")
        schema = pq.read_schema(pa.BufferReader(data))
        if not (schema.equals(UNIT_SCHEMA) or schema.equals(ROWS_SCHEMA)):
            raise RunError(f"{ROWS} has other columns than this version of coat writes")
    except (FileNotFoundError, pa.ArrowException) as e:
        raise RunError(f"{ROWS}: cannot be read ({e})") from e


def check_array(targets: TargetSet, unit: str, expected: str) -> None:
    """Before Zarr believes it: metadata that lie could ask for any memory."""
    try:
        data = storage.read_bytes(targets.unit_url(unit, FRAMES, ARRAY))
    except FileNotFoundError as e:
        raise RunError(f"{FRAMES}: cannot be opened (no {ARRAY})") from e
    if xxhash.xxh3_128_hexdigest(data) != expected:
        raise RunError(f"{FRAMES}/{ARRAY} does not have the digest of done.json; it was changed after the commit")


def open_frames_array(targets: TargetSet, unit: str) -> zarr.Array:
    try:
        url = targets.unit_url(unit, FRAMES)
        return storage.request(url, lambda: open_array(url))
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as e:  # zarr.json missing, torn, or not of an array
        raise RunError(f"{FRAMES}: cannot be opened ({type(e).__name__}: {e})") from e


def read_blocks(url: str, array: zarr.Array) -> Iterator[np.ndarray]:
    for start in range(0, array.shape[0], BLOCK_FRAMES):
        try:
            yield storage.request(url, partial(read_block, array, start))
        except (PermissionError, Unreachable):
            raise
        except (OSError, ValueError, RuntimeError) as e:  # a torn shard, or a chunk whose CRC-32C is wrong
            raise RunError(f"{FRAMES}: frames {start}.. cannot be read ({type(e).__name__}: {e})") from e


def read_block(array: zarr.Array, start: int) -> np.ndarray:
    return np.asarray(array[start : start + BLOCK_FRAMES])
