"""Samples to tars, in order: a tar is closed when the next sample would make it larger than the target."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from coat.manifests import storage
from coat.manifests.errors import RunError
from coat.manifests.shards.energon import write_offsets
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.tar import TAR_END
from coat.pipeline.shards.build_folder import BuildFolder
from coat.pipeline.shards.encoding import BlockData, SampleOutcome

COPY_BYTES = 8 * 2**20  # of a block, at once


def shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


@dataclass(frozen=True)
class FinishedShard:
    """One tar: what the index says of it, a row per sample, and the (id, reason) of those that could not be written.

    `next`: the position in the plan of the sample that comes after it; `chain`: the digest of all samples before that
    one. All names here are keys of the record that a rerun reads.
    """

    info: ShardInfo
    rows: Sequence[dict[str, Any]]
    left_out: Sequence[tuple[str, str]]
    next: int
    chain: str

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "info": asdict(self.info)}  # rows as they are: asdict copies each value

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "FinishedShard":
        left_out = [(identity, reason) for identity, reason in data["left_out"]]
        return cls(**{**data, "info": ShardInfo(**data["info"]), "left_out": left_out})


@dataclass
class PlannedTar:
    """What a tar will hold: spans (number of a block, first byte, end) of encoded blocks, one after the other."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    size: int = 0
    spans: list[tuple[int, int, int]] = field(default_factory=list)
    next: int = 0  # position in the plan of the sample behind its last one
    chain: str = ""

    def add(self, outcome: SampleOutcome, block: int, start: int) -> None:
        """A sample whose bytes begin at `start` of a block."""
        assert outcome.row is not None
        self.rows.append({**outcome.row, "offset": self.size, "length": outcome.length})
        self.size += outcome.length
        if self.spans and self.spans[-1][0] == block and self.spans[-1][2] == start:
            self.spans[-1] = block, self.spans[-1][1], start + outcome.length
        else:
            self.spans.append((block, start, start + outcome.length))

    def finished(self, digest: str) -> FinishedShard:
        info = ShardInfo(
            name=self.name,
            samples=len(self.rows),
            bytes=self.size + len(TAR_END) if self.rows else 0,
            seconds=round(sum(row["duration"] for row in self.rows), 6) if self.rows else 0.0,
            xxh3=digest,
        )
        return FinishedShard(info, self.rows, self.left_out, self.next, self.chain)


class TarCutter:
    """Deals samples out to tars, in the order of the plan. Only their lengths are asked for, so that any worker may
    write any tar.
    """

    def __init__(self, shard_size: int, first_shard: int, digest: xxhash.xxh3_128, position: int) -> None:
        """`digest`: of all samples before the one at `position`."""
        self.shard_size, self.number, self.digest, self.position = shard_size, first_shard, digest, position
        self.tar: PlannedTar | None = None

    def add_block(self, block: int, outcomes: Sequence[SampleOutcome]) -> Iterator[PlannedTar]:
        """Tars that are full now."""
        start = 0
        for outcome in outcomes:
            if outcome.row is not None and self.is_full(outcome.length):
                yield from self.close()
            if self.tar is None:
                self.tar = PlannedTar(shard_name(self.number))
                self.number += 1
            if outcome.row is not None:
                self.tar.add(outcome, block, start)
                start += outcome.length
            else:
                self.tar.left_out.append((outcome.id, outcome.reason))
            self.digest.update(outcome.identity)
            self.position += 1

    def is_full(self, more: int) -> bool:
        return self.tar is not None and bool(self.tar.rows) and self.tar.size + more + len(TAR_END) > self.shard_size

    def close(self) -> Iterator[PlannedTar]:
        """The tar that is open, if there is one."""
        tar, self.tar = self.tar, None
        if tar is not None:
            tar.next, tar.chain = self.position, self.digest.hexdigest()
            yield tar


@dataclass(frozen=True)
class TarJob:
    """Writing one tar. `folder`: on the disk of `out`, so that a rename moves it; None: a temporary one, to upload."""

    out: str
    name: str
    folder: Path | None
    spans: tuple[tuple[int, int, int], ...]  # as PlannedTar's, but of the blocks that come with the job
    lengths: tuple[int, ...]  # of its samples


def write_tar(job: TarJob, *blocks: BlockData) -> str:
    """Write it, move it to its place, put its offsets beside it, and give its digest."""
    digest = xxhash.xxh3_128()
    with ExitStack() as stack:
        folder = job.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coat-shards-")))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / job.name
        with path.open("wb") as f:
            for data in span_data(job, blocks):
                f.write(data)
                digest.update(data)
            f.flush()
            os.fsync(f.fileno())  # its record must not outlive it in a power cut
        target = storage.join(job.out, job.name)
        if storage.is_local(target):
            path.chmod(0o644)
            os.replace(path, storage.local_path(target))
        else:
            storage.upload(path, target)
    write_offsets(job.out, job.name, job.lengths)
    return digest.hexdigest()


def span_data(job: TarJob, blocks: Sequence[BlockData]) -> Iterator[bytes | memoryview]:
    """The content of the tar, piece by piece."""
    for block, start, stop in job.spans:
        data = blocks[block]
        if not isinstance(data, Path):
            yield data[start:stop].data
            continue
        with data.open("rb") as f:
            f.seek(start)
            for at in range(start, stop, COPY_BYTES):
                yield f.read(min(COPY_BYTES, stop - at))
    yield TAR_END


def read_finished_shards(folder: BuildFolder) -> Iterator[FinishedShard]:
    """What an earlier build of the same recipe finished, from the first tar on, without a gap."""
    number = 0
    while (record := folder.read_record(shard_name(number))) is not None:
        yield FinishedShard.from_dict(record)
        number += 1


def write_error(out: str, error: OSError) -> RunError:
    return RunError(f"{out}: cannot be written ({error.strerror or error}); what is finished is kept, run again")
