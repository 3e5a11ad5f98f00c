"""How much a worker gathers at once.

A block of B samples in a global shuffle over U units asks each unit that it touches once or twice, so that a sample
costs about U / B requests an expert. Where that is many, frames are shuffled before (`shards/shuffling.py`). Blocks
wait in the temporary folder, or beside the tars.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from coat.manifests import storage
from coat.pipeline.store.target_set import TargetSet

LOCAL_BLOCK_BYTES = 64 * 2**20  # where reading is not by request
REMOTE_BLOCK_BYTES = 2**30
LEAST_BLOCK_BYTES = 16 * 2**20  # not smaller, so that every worker has some
BLOCKS_ON_DISK = 3  # of a worker: one that it encodes, one that waits, one that is written


def choose_block_bytes(total: int, sets: Iterable[TargetSet], workers: int, folder: Path | None = None) -> int:
    """So large that there are two blocks for each worker, within what the disk of `folder` holds.

    `total` bytes are to be made of these sets; `workers` 0: this process makes them.
    """
    is_local = all(storage.is_local(targets.url) for targets in sets)
    most = LOCAL_BLOCK_BYTES if is_local else REMOTE_BLOCK_BYTES
    if folder is not None:
        most = min(most, shutil.disk_usage(folder).free // (2 * BLOCKS_ON_DISK * max(1, workers)))
    return max(LEAST_BLOCK_BYTES, min(most, total // max(1, 2 * workers)))
