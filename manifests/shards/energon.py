"""What Megatron Energon wants beside the tars of a WebDataset, so that it reads a shard set as it is.

    OUT/.nv-meta/.info.json      samples by tar
    OUT/.nv-meta/split.yaml      all tars are of the part "train"
    OUT/.nv-meta/dataset.yaml    samples as they are, by suffix (CrudeWebdataset): the user's cooker decides
    OUT/shard-000000.tar.idx     where each sample begins, and the end: unsigned 64-bit integers, little-endian

`energon prepare` makes the same, and an index.sqlite for reading single files, which training does not need.
"""

import json
from collections.abc import Sequence

import numpy as np

from coat.manifests import storage
from coat.manifests.shards.info import ShardInfo

META_FOLDER = ".nv-meta"
INDEX_SUFFIX = ".idx"
FORMAT_VERSION = "7.4.1"  # of Energon, whose format this is
DATASET = """\
__module__: megatron.energon
__class__: CrudeWebdataset
"""


def write_offsets(out: str, name: str, lengths: Sequence[int]) -> None:
    """Beside the tar, from the bytes that its samples take."""
    storage.write_bytes(storage.join(out, name + INDEX_SUFFIX), sample_offsets(lengths))


def sample_offsets(lengths: Sequence[int]) -> bytes:
    return np.concatenate([[0], np.cumsum(lengths)]).astype("<u8").tobytes()


def write_meta(out: str, shards: Sequence[ShardInfo]) -> None:
    for name, data in meta_files(shards).items():
        storage.write_bytes(storage.join(out, name), data)


def meta_files(shards: Sequence[ShardInfo]) -> dict[str, bytes]:
    """By path in OUT."""
    counts = {s.name: s.samples for s in shards}
    info = {"energon_version": FORMAT_VERSION, "shard_counts": counts}
    parts = {"split_parts": {"train": list(counts), "val": [], "test": []}, "exclude": []}
    return {
        f"{META_FOLDER}/.info.json": storage.to_json(info),
        f"{META_FOLDER}/split.yaml": (json.dumps(parts, indent=2) + "\n").encode(),  # JSON is YAML
        f"{META_FOLDER}/dataset.yaml": DATASET.encode(),
    }
