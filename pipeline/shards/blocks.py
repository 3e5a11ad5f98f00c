"""Blocks of samples to tars, by workers. Two steps, each done by any worker:

    encode   a block, which is a run of the plan: its frames are gathered unit by unit, its audio file by file
    write    a tar, of one or several blocks

This process only cuts: from the lengths of encoded samples follow the ends of tars (`TarCutter`). So order and bytes
are those of one writer, whatever the number of workers and the size of blocks.
A block asks each unit that it touches once or twice, each audio file once (`gathering/block_size.py`); where that would
be many requests, frames are shuffled before (`shuffling.py`).
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

import xxhash

from coat.manifests import storage
from coat.pipeline.cluster.ordered import RESULTS_AHEAD
from coat.pipeline.cluster.pool import WorkerPool
from coat.pipeline.gathering.block_size import choose_block_bytes
from coat.pipeline.shards.build_folder import BuildFolder
from coat.pipeline.shards.encoding import EncodingJob, encode_block
from coat.pipeline.shards.plan import ShardPlan
from coat.pipeline.shards.samples import SampleSettings
from coat.pipeline.shards.shuffling import FrameShuffle
from coat.pipeline.shards.writer import FinishedShard, PlannedTar, TarCutter, TarJob, write_tar


class TarBuild:
    """Writes what is left of a plan."""

    def __init__(
        self,
        plan: ShardPlan,
        settings: SampleSettings,
        folder: BuildFolder,
        pool: WorkerPool,
        block_bytes: int | None,
        workers: int,
        shuffle: FrameShuffle,
    ) -> None:
        """`workers` 0: the pool is this process."""
        self.shuffle = shuffle
        self.plan, self.settings, self.folder, self.pool, self.workers = plan, settings, folder, pool, workers
        self.block_bytes = block_bytes or choose_block_bytes(
            int(plan.bytes_S.sum()), plan.sets.values(), workers, folder.temporary_folder()
        )
        self.blocks: dict[int, Any] = {}  # their data, until the last tar that has some of it is written

    def tars(self, position: int, digest: xxhash.xxh3_128, number: int) -> Iterator[FinishedShard]:
        """From the sample at `position` on; `digest` is of those before it. Each is recorded when it is given."""
        cutter = TarCutter(self.settings.recipe.shard_size, number, digest.copy(), position)
        writing: deque[tuple[PlannedTar, Any]] = deque()
        for block, outcomes in self.encoded_blocks(position):
            for tar in cutter.add_block(block, outcomes):
                writing.append((tar, self.submit(tar)))
                while len(writing) > RESULTS_AHEAD * self.workers:
                    yield self.finish(*writing.popleft())
        writing.extend((tar, self.submit(tar)) for tar in cutter.close())
        while writing:
            yield self.finish(*writing.popleft())

    def encoded_blocks(self, position: int) -> Iterator[tuple[int, Any]]:
        """Number and outcomes of blocks in order, some of which are being encoded ahead."""
        block = 0
        for group in self.shuffle.groups(list(self.plan.batches(self.block_bytes, position))):
            encoding: deque[tuple[int, Any]] = deque()
            for number, (first, stop) in enumerate(group.blocks):
                job, frames = self.job(block, first, stop), group.take_frames(number)
                outcomes, self.blocks[block] = self.pool.submit_parts(encode_block, 2, job, *frames)
                encoding.append((block, outcomes))
                block += 1
                if len(encoding) >= max(1, RESULTS_AHEAD * self.workers):
                    number_of, outcomes = encoding.popleft()
                    yield number_of, self.pool.result(outcomes)
            for number_of, outcomes in encoding:
                yield number_of, self.pool.result(outcomes)

    def job(self, block: int, first: int, stop: int) -> EncodingJob:
        samples = tuple(self.plan.samples(first, stop))
        path = self.folder.temporary_folder() / f"block-{block:06d}" if self.pool.shares_disk else None
        return EncodingJob(samples, self.plan.sources(samples), self.settings, path)

    def submit(self, tar: PlannedTar) -> Any:
        """The digest of the tar, to come; None where nothing could be written of its samples."""
        if not tar.rows:
            return None
        numbers = sorted({block for block, _, _ in tar.spans})
        spans = tuple((numbers.index(block), start, stop) for block, start, stop in tar.spans)
        out = self.folder.out
        place = self.folder.temporary_folder() if storage.is_local(out) else None
        job = TarJob(out, tar.name, place, spans, tuple(row["length"] for row in tar.rows))
        return self.pool.submit(write_tar, job, *(self.blocks[number] for number in numbers))

    def finish(self, tar: PlannedTar, digest: Any) -> FinishedShard:
        if digest is None:
            return tar.finished("")
        shard = tar.finished(self.pool.result(digest))
        self.folder.write_record(shard.info.name, shard.to_dict())
        last = tar.spans[-1][0]
        for block in [b for b in self.blocks if b < last]:
            data = self.blocks.pop(block)
            if self.pool.shares_disk:
                self.pool.result(data).unlink()
        return shard
