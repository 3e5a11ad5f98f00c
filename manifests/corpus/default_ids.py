"""Ids for rows that have none: their audio and offset."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash
from numpy.typing import NDArray

from coat.manifests.corpus.columns import SPAN_SCHEMA, TEXT
from coat.manifests.corpus.digests import hash_texts

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers


def fill_missing_ids(table: pa.Table) -> pa.Table:
    """Rows without an id (an empty one) are named by their audio and offset."""
    if not pc.any(pc.equal(table.column("id"), "")).as_py():
        return table
    ids = table.column("id").combine_chunks()
    stems = ids_from_audio(table.column("audio_filepath").combine_chunks(), table.column("offset").to_numpy())
    return table.set_column(0, SPAN_SCHEMA.field("id"), fill_ids(ids, stems))


def ids_from_audio(audio_filepaths: pa.Array, offsets: NDArray[np.float64]) -> pa.Array:
    """The path without its suffix; `@1.500` where the row begins later in the file."""
    stems = pc.replace_substring_regex(audio_filepaths, r"\.[^.]*\z", "")
    return append_offsets(stems, offsets)


def append_offsets(stems: pa.Array, offsets: NDArray[np.float64]) -> pa.Array:
    ends = pa.array([f"@{s:.3f}" if s else "" for s in offsets.tolist()], TEXT)
    return pc.binary_join_element_wise(stems, ends, pa.scalar("", TEXT))


def fill_ids(ids: pa.Array, stems: pa.Array) -> pa.Array:
    """Ids, with a row's stem for each that is empty; `#2`, `#3` ... where another row has that name."""
    unnamed = pc.equal(ids, "")
    names = pc.if_else(unnamed, stems, ids)
    digests, is_unnamed = hash_texts(names), unnamed.to_numpy(zero_copy_only=False)
    reserved, counts = np.unique(digests, return_counts=True)
    shared = is_unnamed & (counts[np.searchsorted(reserved, digests)] > 1)
    if not shared.any():
        return names
    taken = set(digests[shared].tolist()) & set(digests[~is_unnamed].tolist())  # by rows that have them by right
    repeats: Counter[str] = Counter()
    renamed = []
    for stem, digest in zip(names.filter(pa.array(shared)).to_pylist(), digests[shared].tolist(), strict=True):
        name = stem
        while digest in taken or (name != stem and contains(reserved, name)):
            repeats[stem] += 1
            name = f"{stem}#{repeats[stem] + 1}"
            digest = xxhash.xxh3_64_intdigest(name.encode())
        taken.add(digest)
        renamed.append(name)
    return pc.replace_with_mask(names, pa.array(shared), pa.array(renamed, TEXT))


def contains(digests: NDArray[np.uint64], name: str) -> bool:
    """Of sorted digests."""
    digest = np.uint64(xxhash.xxh3_64_intdigest(name.encode()))
    at = np.searchsorted(digests, digest)
    return bool(at < len(digests) and digests[at] == digest)
