"""Reading frames of committed units. N frames, D dim."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.errors import RunError, Unreachable
from coat.pipeline.store.frames_writer import CHUNK_FRAMES

if TYPE_CHECKING:
    import zarr  # takes as long to import as all else that a worker of build-shards needs, which reads without it

REPAIR_HINT = "`coat verify --repair` drops damaged units, and the next extract makes them again"
BLOCK_VALUES = 2**21  # of a block of `dask_frames`: 16 MB in float64, of which a computation holds some copies a thread


@lru_cache(maxsize=64)
def open_frames(url: str) -> "zarr.Array":
    """Committed frames never change, so that an opened array may be kept."""
    return open_array(url)


def open_array(url: str) -> "zarr.Array":
    """For `storage.request`: Zarr reads it by itself, an object store through the driver that coat has."""
    import zarr
    from zarr.storage import ObjectStore

    if storage.is_local(url):
        return zarr.open_array(storage.local_path(url), mode="r", zarr_format=3)
    store, key = storage.object_store(url)
    return zarr.open_array(ObjectStore(store, read_only=True), path=key, mode="r", zarr_format=3)


def read_frames(url: str, first: int, frames: int, dim: int) -> NDArray[Any]:
    """`[frames, dim]` of a unit. RunError where it was damaged after its commit: Zarr checks every chunk it reads."""
    try:
        found = storage.request(url, lambda: np.asarray(open_frames(url)[first : first + frames]))
    except (Unreachable, PermissionError):
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as e:
        raise RunError(f"{storage.parent(url)}: frames cannot be read ({e}); {REPAIR_HINT}") from e
    if found.shape != (frames, dim):
        raise RunError(f"{storage.parent(url)}: fewer frames than its rows say; {REPAIR_HINT}")
    return found


def dask_frames(arrays: Sequence[tuple[str, int]], dim: int) -> Any:
    """Arrays (URL, number of frames), one after the other, as one float32 `dask.array` `[N, D]`, read lazily.

    A block has some BLOCK_VALUES, and opens its array by URL, so that the graph travels to any scheduler.
    """
    spans = [(url, first, count, dim) for url, frames in arrays for first, count in block_spans(frames, dim)]
    return lazy_frames(spans, [count for _, _, count, _ in spans], dim, read_dask_block)


def block_spans(frames: int, dim: int) -> Iterator[tuple[int, int]]:
    """First frame and number of frames of each block of a unit."""
    step = max(1, BLOCK_VALUES // dim // CHUNK_FRAMES) * CHUNK_FRAMES
    return ((first, min(step, frames - first)) for first in range(0, frames, step))


def lazy_frames(spans: Sequence[Any], counts: Sequence[int], dim: int, read: Callable[[NDArray[Any]], Any]) -> Any:
    """A block `[count, dim]` for each span, which `read` gets in an array of its own."""
    import dask.array as da

    if not spans:
        return da.zeros((0, dim), dtype="float32")
    spans_B = da.from_array(np.fromiter(spans, object), chunks=1)  # pyright: ignore[reportArgumentType]  a size
    return spans_B.map_blocks(
        read,
        chunks=(tuple(counts), (dim,)),
        new_axis=1,
        dtype="float32",
        meta=np.zeros((0, 0), np.float32),
    )


def read_dask_block(span_1: NDArray[Any]) -> NDArray[np.float32]:
    return read_frames(*span_1[0]).astype(np.float32)
