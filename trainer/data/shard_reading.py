"""The samples of tars, in the order of the tars: one tar, a whole set, or several tars at a time."""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator

from coat.manifests import BrokenShard, ShardIndex, ShardInfo
from coat.manifests.shards.reading import read_samples
from coat.trainer.data.ahead import Ahead
from coat.trainer.data.decoding import decode_sample
from coat.trainer.data.samples import RawSample, Sample

AHEAD_BYTES = 2**26  # of a tar that is read ahead: eight requests of a stream


def iterate_shards(path: str) -> Iterator[Sample]:
    """Every sample of a shard set once, decoded, in the order of its tars.

    InputError: no index in `path`, or a shard that is not what the index says.
    """
    index = ShardIndex.read(path)
    for shard in index.shards:
        for raw in read_shard(index, shard):
            yield decode_sample(raw, index)


def read_shard(index: ShardIndex, shard: ShardInfo, experts: Collection[str] | None = None) -> Iterator[RawSample]:
    """The samples of one tar with their sidecars (of these experts; None: all), not decoded. InputError where it is
    missing, broken (BrokenShard) or not what the index says.
    """
    for sample in read_samples(index, shard, experts):
        yield RawSample(shard.name, sample.key, sample.members)


def read_shard_or_lost(
    index: ShardIndex, shard: ShardInfo, experts: Collection[str] | None = None
) -> Iterator[RawSample]:
    """As many samples as the index says, the last of them lost where a tar is cut or broken.

    InputError where it gives none at all, or where it is not what the index says.
    """
    found = 0
    try:
        for raw in read_shard(index, shard, experts):
            found += 1
            yield raw
    except BrokenShard as e:
        if found == 0:
            raise
        for number in range(found, shard.samples):
            yield RawSample(shard.name, f"sample {number}", {}, lost=str(e))


def read_ahead(
    tars: Iterator[Callable[[], Generator[RawSample]]], at_a_time: int, max_bytes: int = AHEAD_BYTES
) -> Generator[RawSample]:
    """The samples of one tar after the other, in this order, while others behind it are read in threads.

    `tars` begin to read a tar each, and may be without end. A store that takes its time for each request does not set
    the pace then, and a tar of few samples costs no wait for the next.
    """
    reading: deque[Ahead[RawSample]] = deque()
    try:
        while True:
            while len(reading) < at_a_time and (begin := next(tars, None)) is not None:
                reading.append(Ahead(begin(), lambda raw: raw.bytes, max_bytes))
            if not reading:
                return
            yield from reading[0]
            reading.popleft()
    finally:
        for tar in reading:
            tar.close()
