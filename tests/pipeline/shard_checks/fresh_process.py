"""Checks of a shard set in a process of its own, whose memory can be traced.

`tracemalloc.stop` of Python 3.11 crashes a process in which another thread allocates at that moment, and threads that
other tests have left may do so.
"""

import os
import tracemalloc
from dataclasses import dataclass

from coat.manifests import InputError
from coat.pipeline.shard_checks.verification import verify_shards
from coat.trainer import iterate_shards


@dataclass(frozen=True)
class Checked:
    damages: list[tuple[str, str]]  # file and message
    is_refused: bool  # by the reader of the trainer
    peak_bytes: int


def verify_and_read(shards: str, folder: str) -> Checked:
    """`folder`: where the process works meanwhile."""
    os.chdir(folder)
    tracemalloc.start()
    damages = verify_shards(shards).damages
    try:
        list(iterate_shards(shards))
        is_refused = False
    except InputError:
        is_refused = True
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Checked([(d.file, d.message) for d in damages], is_refused, peak_bytes)
