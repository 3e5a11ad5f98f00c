"""Samples to tars, in order: a tar is closed when the next sample would make it larger than the target."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from coat.manifests import storage
from coat.manifests.errors import RunError
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.tar import TAR_END
from coat.pipeline.shards.build_folder import BuildFolder
from coat.pipeline.shards.encoding import EncodedSample
from coat.pipeline.shards.energon import write_offsets


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
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "FinishedShard":
        left_out = [(identity, reason) for identity, reason in data["left_out"]]
        return cls(**{**data, "info": ShardInfo(**data["info"]), "left_out": left_out})


@dataclass
class OpenTar:
    """A tar in the making, in a file of its own."""

    path: Path
    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    size: int = 0

    def __post_init__(self) -> None:
        self.file = self.path.open("wb")
        self.digest = xxhash.xxh3_128()

    def add(self, sample: EncodedSample) -> None:
        self.write(sample.data)
        self.rows.append({**sample.row, "offset": self.size - len(sample.data), "length": len(sample.data)})

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)

    def close(self, out: str) -> ShardInfo:
        """Move it to its place."""
        self.write(TAR_END)
        self.file.flush()
        os.fsync(self.file.fileno())  # its record must not outlive it in a power cut
        self.file.close()
        target = storage.join(out, self.name)
        if storage.is_local(target):
            self.path.chmod(0o644)
            os.replace(self.path, storage.local_path(target))
        else:
            storage.upload(self.path, target)
            self.path.unlink()
        return ShardInfo(
            name=self.name,
            samples=len(self.rows),
            bytes=self.size,
            seconds=round(sum(row["duration"] for row in self.rows), 6),
            xxh3=self.digest.hexdigest(),
        )


class ShardWriter:
    """Adds the plan's samples one by one. `finished` has the tars that are closed and recorded."""

    def __init__(
        self, folder: BuildFolder, shard_size: int, first_shard: int, on_shard: Callable[[FinishedShard], None]
    ) -> None:
        self.folder, self.shard_size, self.number, self.on_shard = folder, shard_size, first_shard, on_shard
        self.tar: OpenTar | None = None
        self.finished: list[FinishedShard] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self.tar is not None:
            self.tar.file.close()

    def add(self, encoded: EncodedSample | str, identity: str, position: int, chain: str) -> None:
        """`chain`: the digest of all samples before the one at `position`."""
        if isinstance(encoded, EncodedSample) and self.is_full(len(encoded.data)):
            self.finish(position, chain)
        self.tar = self.tar or self.open()
        if isinstance(encoded, EncodedSample):
            self.tar.add(encoded)
        else:
            self.tar.left_out.append((identity, encoded))

    def is_full(self, more: int) -> bool:
        return self.tar is not None and bool(self.tar.rows) and self.tar.size + more + len(TAR_END) > self.shard_size

    def open(self) -> OpenTar:
        name = shard_name(self.number)
        return OpenTar(self.folder.temporary_folder() / name, name)

    def finish(self, position: int, chain: str) -> None:
        """Close the open tar and record it; the next one begins with the sample at `position`."""
        tar, self.tar = self.tar, None
        if tar is None:
            return
        if tar.rows:
            info = tar.close(self.folder.out)
            write_offsets(self.folder.out, info.name, [row["length"] for row in tar.rows])
        else:  # nothing of what is left could be written
            tar.file.close()
            tar.path.unlink()
            info = ShardInfo(name=tar.name, samples=0, bytes=0, seconds=0.0, xxh3="")
        shard = FinishedShard(info, tar.rows, tar.left_out, position, chain)
        if tar.rows:
            self.folder.write_record(info.name, shard.to_dict())
        self.number += 1
        self.finished.append(shard)
        self.on_shard(shard)


def read_finished_shards(folder: BuildFolder) -> Iterator[FinishedShard]:
    """What an earlier build of the same recipe finished, from the first tar on, without a gap."""
    number = 0
    while (record := folder.read_record(shard_name(number))) is not None:
        yield FinishedShard.from_dict(record)
        number += 1


def write_error(out: str, error: OSError) -> RunError:
    return RunError(f"{out}: cannot be written ({error.strerror or error}); what is finished is kept, run again")
