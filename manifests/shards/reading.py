"""Samples of a shard set as bytes: tar by tar, joined with their sidecars, or one by its place in the index."""

import io
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from typing import BinaryIO

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.shards.index import ShardIndex
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.tar import TarSample, read_tar


def read_samples(index: ShardIndex, shard: ShardInfo, experts: Collection[str] | None = None) -> Iterator[TarSample]:
    """The samples of one tar, with the targets that sidecars have for them (of all experts, or of those named).

    InputError where a tar is missing, broken, or not what its index says: other samples, or another order.
    """
    sides = {name: side for name, side in index.sidecars.items() if experts is None or name in experts}
    with ExitStack() as stack:
        waiting = {}
        for name, side in sides.items():
            info = side.by_name.get(shard.name)
            if info is None:
                raise InputError(f"{side.path}: no {shard.name} for the one of {index.path}; add {name} again")
            waiting[name] = SidecarCursor(side.path, name, read_counted(side.path, info, stack))
        for sample in read_counted(index.path, shard, stack):
            for side in waiting.values():
                if side.sample is not None and side.sample.key == sample.key:
                    sample.members.update(side.take())
            yield sample
        for side in waiting.values():
            if side.sample is not None:
                raise InputError(
                    f"{side.path}/{shard.name}: {side.sample.key} is not in {index.path}/{shard.name}, or not in this "
                    f"order; the sidecar is of other shards: remove it, and `coat shards add-expert` again"
                )


class SidecarCursor:
    """The next sample of a sidecar."""

    def __init__(self, path: str, expert: str, samples: Iterator[TarSample]) -> None:
        self.path, self.expert, self.samples = path, expert, samples
        self.sample = next(samples, None)

    def take(self) -> dict[str, bytes]:
        assert self.sample is not None
        members = self.sample.members
        strange = [s for s in members if not s.startswith(f"{self.expert}.")]
        if strange:
            raise InputError(f"{self.path}: {self.sample.key}.{strange[0]} is not of {self.expert}")
        self.sample = next(self.samples, None)
        return members


def read_counted(path: str, shard: ShardInfo, stack: ExitStack) -> Iterator[TarSample]:
    """One tar as it lies there, counted."""
    url = storage.join(path, shard.name)
    found = 0
    try:
        stream, size = open_shard(url)
    except FileNotFoundError as e:
        raise InputError(f"{url}: no such shard, but the index names it; copy the whole folder") from e
    stack.enter_context(stream)
    for sample in read_tar(stream, size, url):
        found += 1
        yield sample
    if found != shard.samples:
        raise InputError(f"{url}: {found} samples, but the index says {shard.samples}; build or copy it again")


def open_shard(url: str) -> tuple[BinaryIO, int]:
    """A stream and its size."""
    return storage.open_stream(url), storage.size(url)


def read_sample_at(path: str, name: str, offset: int, length: int) -> TarSample:
    """One sample by its place, as `samples.parquet` has it: one request, whatever the size of the tar."""
    url = storage.join(path, name)
    data = storage.read_range(url, offset, offset + length)
    (sample,) = read_tar(io.BytesIO(data), length, url, has_end=False)
    return sample
