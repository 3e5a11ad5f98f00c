"""64-bit xxh3 digests of manifest rows: one definition, for one row and for millions."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash
from numpy.typing import NDArray

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
BLOCK_ROWS = 65536


def digest_text(identity: str, audio_filepath: str, offset: float, duration: float | None) -> str:
    """What a row selects. Times are whole microseconds; numbers and the id's length (in code
    points) come before what is free text, so that no two rows with different values give one string."""
    length = "-" if duration is None else str(microseconds(duration))
    return f"{microseconds(offset)} {length} {len(identity)} {identity} {audio_filepath}"


def row_digest(identity: str, audio_filepath: str, offset: float, duration: float | None) -> str:
    """16 hex digits."""
    return xxhash.xxh3_64_hexdigest(digest_text(identity, audio_filepath, offset, duration).encode())


def row_digests(
    ids: pa.Array, audio_filepaths: pa.Array, offsets: NDArray[np.float64], durations: NDArray[np.float64]
) -> NDArray[np.uint64]:
    """The same for many rows, as integers. NaN stands for no duration."""
    found = np.empty(len(ids), np.uint64)
    for start in range(0, len(ids), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        block, missing = ids[part], np.isnan(durations[part])
        lengths = pa.array(microseconds(np.where(missing, 0.0, durations[part]))).cast(pa.large_string())
        texts = pc.binary_join_element_wise(
            pa.array(microseconds(offsets[part])).cast(pa.large_string()),
            pc.if_else(pa.array(missing), pa.scalar("-", pa.large_string()), lengths),
            pc.utf8_length(block).cast(pa.large_string()),
            block,
            audio_filepaths[part],
            pa.scalar(" ", pa.large_string()),
        )
        found[part] = hash_texts(texts)
    return found


def microseconds(seconds: Any) -> Any:
    """Of a float an int, of an array an array: both round half to even."""
    if isinstance(seconds, np.ndarray):
        return np.rint(seconds * 1e6).astype(np.int64)
    return round(seconds * 1e6)


def hash_texts(texts: pa.Array) -> NDArray[np.uint64]:
    """xxh3_64 of each string of a `large_string` array without nulls; the bytes are not copied."""
    assert texts.type == pa.large_string(), texts.type
    found = np.empty(len(texts), np.uint64)
    if not len(texts):
        return found
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets, np.int64)[texts.offset :]
    view, digest = memoryview(data or b""), xxhash.xxh3_64_intdigest
    for start in range(0, len(texts), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(texts))
        at = edges[start : stop + 1].tolist()
        found[start:stop] = [digest(view[a:b]) for a, b in pairwise(at)]
    return found


def to_hex(digests: NDArray[np.uint64]) -> list[str]:
    return [f"{d:016x}" for d in digests.tolist()]


def from_hex(digests: pa.Array) -> NDArray[np.uint64]:
    """Of a string array; ValueError where one is not 16 hex digits."""
    if len(digests) and not (pc.binary_length(digests).to_numpy(zero_copy_only=False) == 16).all():
        raise ValueError("a digest that is not 16 hex digits")
    text = "".join(digests.to_pylist())
    return np.frombuffer(bytes.fromhex(text), ">u8").astype(np.uint64)
