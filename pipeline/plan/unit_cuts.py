"""Where units begin and end.

The same manifest gives the same units whatever is already done: a run that was killed goes on with the
very units (and so the very batches, and bytes) that an undisturbed run would have made.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coat.manifests.addresses import groups_of
from coat.manifests.corpus.manifest import Manifest

UNIT_ROWS = 4096
WINDOW_ROWS = 200_000  # rows that are sorted together: padding is small long before the whole corpus is


def cut_units(
    manifest: Manifest,
    digests: NDArray[np.uint64],
    seconds: NDArray[np.float64],
    left: NDArray[np.bool_],
    unit_seconds: float,
) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Rows in the order of their units, and where each unit begins. `unit_seconds`: of audio in a unit, at most."""
    row_type = np.int32 if len(manifest) < 2**31 else np.int64
    orders, all_starts, before = [np.empty(0, row_type)], [np.empty(0, np.int64)], 0
    for start in range(0, len(manifest), WINDOW_ROWS):
        window = slice(start, start + WINDOW_ROWS)
        audio = manifest.table["audio_filepath"].slice(start, WINDOW_ROWS).combine_chunks()
        order, longest = sort_window(audio, seconds[window], digests[window])
        kept = left[window][order]
        order, longest = (order[kept] + start).astype(row_type), longest[kept]
        starts = unit_starts(seconds[order], longest, unit_seconds)
        unit = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
        order = order[np.lexsort((digests[order], seconds[order], unit))]
        orders.append(order)
        all_starts.append(starts + before)
        before += len(order)
    return np.concatenate(orders), np.concatenate(all_starts)


def sort_window(
    audio: pa.Array, seconds: NDArray[np.float64], digests: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows by the longest span of their file, the files' rows together; and that longest span, for each.

    A tar is such a file, and a row group of a Parquet table.
    """
    file = groups_of(audio).dictionary_encode().indices.to_numpy()
    files = int(file.max()) + 1
    if files == len(audio):
        order = np.lexsort((digests, seconds))
        return order, seconds[order]
    longest, first = np.zeros(files), np.full(files, np.iinfo(np.uint64).max, np.uint64)
    np.maximum.at(longest, file, seconds)
    np.minimum.at(first, file, digests)  # tells files of equal length apart
    order = np.lexsort((digests, seconds, first[file], longest[file]))
    return order, longest[file][order]


def unit_starts(seconds: NDArray[np.float64], longest: NDArray[np.float64], unit_seconds: float) -> NDArray[np.int64]:
    """Where units begin: before a row that might not fit any more, taken to be as long as its file's longest.

    That length ascends where a row's own need not, within a file; so what follows a unit, whichever
    rows that are, did not fit into it. Whole microseconds add up to the same sums wherever one begins.
    """
    longest_us = np.rint(longest * 1e6).astype(np.int64)
    sums = np.concatenate([[0], np.cumsum(np.rint(seconds * 1e6).astype(np.int64))])
    reached = sums[:-1] + longest_us  # ascends
    limit_us = int(unit_seconds * 1e6)
    starts, start = [], 0
    while start < len(seconds):
        starts.append(start)
        fits = int(np.searchsorted(reached, sums[start] + limit_us, side="right"))
        start = max(start + 1, min(fits, start + UNIT_ROWS))
    return np.array(starts, np.int64)
