"""The tars of a sidecar: which samples are in each, and their bytes. No file of the set but its index is read."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.corpus.digests import from_hex
from coat.manifests.errors import InputError
from coat.manifests.shards.index import SIDECARS, ShardIndex
from coat.manifests.shards.info import ShardInfo
from coat.manifests.shards.tar import TAR_END, sample_bytes
from coat.manifests.targets.members import to_members
from coat.manifests.targets.reduction import Reduction
from coat.pipeline.gathering.frames import GatheredFrames, Source
from coat.pipeline.gathering.places import TargetPlaces, find_places
from coat.pipeline.gathering.spool import Spool
from coat.pipeline.shards.pieces import piece_frames
from coat.pipeline.shards.plan import list_reasons
from coat.pipeline.shards.recipe import Missing
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet

pc: Any = pyarrow.compute
AT_ONCE = 2**18  # samples whose digests are strings at a time
RECORDS = "building"  # a file by finished tar, until the index is there


@dataclass(frozen=True)
class SidecarJob:
    """One tar: of each sample that has a target its key, its row, and the piece of the utterance that it is."""

    url: str  # of the tar
    set_url: str
    expert: str
    rate_hz: float  # of the frames as extracted
    samples: tuple[tuple[str, Row, float, float | None], ...]
    seconds: float
    reduction: Reduction | None

    @property
    def digest(self) -> str:
        data = {**asdict(self), "reduction": self.reduction and self.reduction.digest}
        return xxhash.xxh3_64_hexdigest(storage.to_json(data, indent=None))


@dataclass(frozen=True)
class SidecarTask:
    """Tars that one worker writes, and where their frames are."""

    jobs: tuple[SidecarJob, ...]
    source: Source

    @classmethod
    def of(cls, jobs: Sequence[SidecarJob], targets: TargetSet) -> "SidecarTask":
        units = {row.unit for job in jobs for _, row, _, _ in job.samples}
        return cls(tuple(jobs), Source.of(targets, units, {unit: int(targets.done[unit]["frames"]) for unit in units}))


@dataclass(frozen=True)
class SidecarTar:
    """A tar that is written; keys, bytes and frames of its samples."""

    info: ShardInfo
    keys: tuple[str, ...]
    lengths: tuple[int, ...]
    frames: tuple[int, ...]


def sidecar_jobs(
    index: ShardIndex,
    table: pa.Table,
    name: str,
    targets: TargetSet,
    reduction: Reduction | None,
    missing: Missing,
) -> Iterator[SidecarJob]:
    """InputError, before anything is written, where targets are missing that may not be."""
    places, has_target_S = sample_places(table, targets)
    missing_S = np.flatnonzero(~has_target_S & (table["duration"].to_numpy() > 0))  # a sample of text alone needs none
    if len(missing_S) and missing == "fail":
        ids = table["id"].take(pa.array(missing_S[:1000])).to_pylist()
        reasons = [(identity, f"{name} was not extracted, or heard other audio") for identity in ids]
        raise InputError(
            f"{index.path}: {len(missing_S)} of {len(table)} samples lack a target of {name}: {list_reasons(reasons)}; "
            "extract them, or give --missing mask"
        )
    ends = np.searchsorted(table["shard"].to_numpy(), np.arange(len(index.shards) + 1))
    for number, shard in enumerate(index.shards):
        first, stop = int(ends[number]), int(ends[number + 1])
        rows = zip(range(first, stop), table.slice(first, stop - first).to_pylist(), strict=True)
        with_target = [(s, row) for s, row in rows if has_target_S[s]]
        samples = tuple(
            (
                row["key"],
                places.row_of(s, row["id"], row["digest"]),
                row["start"],
                None if row["whole"] else row["duration"],
            )
            for s, row in with_target
        )
        seconds = sum(row["duration"] for _, row in with_target)
        url = storage.join(index.path, SIDECARS, name, shard.name)
        yield SidecarJob(url, targets.url, name, targets.spec.rate_hz, samples, round(seconds, 6), reduction)


def sample_places(table: pa.Table, targets: TargetSet) -> tuple[TargetPlaces, NDArray[np.bool_]]:
    """Where each sample's target is, and whether there is one, of the sound that the shards have."""
    slices = (table.slice(first, AT_ONCE) for first in range(0, len(table), AT_ONCE))
    digests, written = [], []
    for part in slices:
        digests.append(from_hex(part["digest"].combine_chunks()))
        written.append(np.array(pc.fill_null(part["source"], "").to_pylist(), dtype="S16"))
    (places,), _ = find_places(targets, [np.concatenate(digests)])
    written_S = np.concatenate(written)
    return places, places.ok_M & ((places.source_M == written_S) | (written_S == b""))


def grouped(jobs: Iterable[SidecarJob], targets: TargetSet, nbytes: int) -> Iterator[SidecarTask]:
    """Tars that follow each other, of about so many bytes of frames, so that a unit that several ask is read once."""
    group: list[SidecarJob] = []
    size = 0
    frame_bytes = targets.spec.dim * np.dtype(targets.spec.dtype).itemsize
    for job in jobs:
        job_bytes = frame_bytes * sum(row.frames for _, row, _, _ in job.samples)
        if group and size + job_bytes > nbytes:
            yield SidecarTask.of(group, targets)
            group, size = [], 0
        group.append(job)
        size += job_bytes
    if group:
        yield SidecarTask.of(group, targets)


def write_sidecar_tars(task: SidecarTask) -> list[tuple[SidecarTar, bool]]:
    """Each tar, and whether it was written now: what an earlier run finished of the very same job is kept."""
    found = [read_record(job) for job in task.jobs]
    to_make = [job for job, tar in zip(task.jobs, found, strict=True) if tar is None]
    with Spool() as spool:
        frames = gather_frames(to_make, task.source, spool)
        made: list[tuple[SidecarTar, bool]] = []
        for job, tar in zip(task.jobs, found, strict=True):
            if tar is not None:
                made.append((tar, False))
                continue
            data, tar = sidecar_tar(job, frames)
            storage.write_bytes(job.url, data)
            storage.write_bytes(record_url(job.url), storage.to_json({"job": job.digest, **asdict(tar)}))
            made.append((tar, True))
    return made


def gather_frames(jobs: Sequence[SidecarJob], source: Source, spool: Spool) -> GatheredFrames:
    frames = GatheredFrames({job.expert: source for job in jobs}, spool)
    frames.gather((job.expert, row) for job in jobs for _, row, _, _ in job.samples)
    return frames


def sidecar_bytes(job: SidecarJob, targets: TargetSet) -> bytes:
    """Of one tar, alone."""
    with Spool() as spool:
        return sidecar_tar(job, gather_frames([job], SidecarTask.of([job], targets).source, spool))[0]


def sidecar_tar(job: SidecarJob, gathered: GatheredFrames) -> tuple[bytes, SidecarTar]:
    """The bytes of the tar, and what is in them."""
    samples, frames = [], []
    for key, row, start, seconds in job.samples:
        first, stop = piece_frames(row, job.rate_hz, start, seconds)
        members, written = to_members(job.expert, gathered.frames(job.expert, row, first, stop), job.reduction)
        samples.append(sample_bytes(key, members))
        frames.append(written)
    data = b"".join([*samples, TAR_END])
    info = ShardInfo(
        name=job.url.rsplit("/", 1)[-1],
        samples=len(samples),
        bytes=len(data),
        seconds=job.seconds,
        xxh3=xxhash.xxh3_128_hexdigest(data),
    )
    keys = tuple(key for key, *_ in job.samples)
    return data, SidecarTar(info, keys, tuple(map(len, samples)), tuple(frames))


def record_url(url: str) -> str:
    """Of the tar at `url`."""
    folder, _, name = url.rpartition("/")
    return storage.join(folder, RECORDS, f"{name}.json")


def read_record(job: SidecarJob) -> SidecarTar | None:
    """What an earlier run finished of this very job."""
    try:
        data: dict[str, Any] = storage.read_json(record_url(job.url))
        size = storage.size(job.url)
    except FileNotFoundError:
        return None
    info = ShardInfo(**data["info"])
    if data["job"] != job.digest or size != info.bytes:
        return None
    return SidecarTar(info, tuple(data["keys"]), tuple(data["lengths"]), tuple(data["frames"]))
