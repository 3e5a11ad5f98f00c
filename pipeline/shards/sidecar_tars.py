"""The tars of a sidecar: which samples are in each, and their bytes. No file of the set but its index is read."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
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
from coat.manifests.shards.samples_table import SamplesFile
from coat.manifests.shards.tar import TAR_END, sample_bytes
from coat.manifests.targets.members import to_members
from coat.manifests.targets.reduction import Reduction
from coat.pipeline.gathering.frames import GatheredFrames, Source
from coat.pipeline.gathering.pieces import piece_frames
from coat.pipeline.gathering.places import TargetPlaces, find_places
from coat.pipeline.gathering.spool import Spool
from coat.pipeline.shards.plan import MAX_LISTED, list_reasons
from coat.pipeline.shards.recipe import Missing
from coat.pipeline.store.rows import OK, Row
from coat.pipeline.store.target_set import TargetSet

pc: Any = pyarrow.compute
ROW_COLUMNS = ("shard", "key", "id", "digest", "start", "whole", "duration")
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
        return cls(tuple(jobs), Source.of(targets, units, targets.done.frames(units)))


@dataclass(frozen=True)
class SidecarTar:
    """A tar that is written; keys, bytes and frames of its samples."""

    info: ShardInfo
    keys: tuple[str, ...]
    lengths: tuple[int, ...]
    frames: tuple[int, ...]


def sidecar_jobs(
    index: ShardIndex,
    samples: SamplesFile,
    name: str,
    targets: TargetSet,
    reduction: Reduction | None,
    missing: Missing,
) -> Iterator[SidecarJob]:
    """InputError, before anything is written, where targets are missing that may not be."""
    places = sample_places(samples, targets)
    has_target_S, missing_ids, count = with_target(samples, places)
    if count and missing == "fail":
        reasons = [(identity, f"{name} was not extracted, or heard other audio") for identity in missing_ids]
        raise InputError(
            f"{index.path}: {count} of {len(samples)} samples lack a target of {name}: {list_reasons(reasons, count)}; "
            "extract them, or give --missing mask"
        )
    rows_of_shards = groupby(sample_rows(samples), key=lambda found: found[1]["shard"])
    held = next(rows_of_shards, None)
    for number, shard in enumerate(index.shards):
        with_target_here: list[tuple[int, dict[str, Any]]] = []
        if held is not None and held[0] == number:
            with_target_here = [(s, row) for s, row in held[1] if has_target_S[s]]
            held = next(rows_of_shards, None)
        described = tuple(
            (
                row["key"],
                places.row_of(s, row["id"], row["digest"]),
                row["start"],
                None if row["whole"] else row["duration"],
            )
            for s, row in with_target_here
        )
        seconds = sum(row["duration"] for _, row in with_target_here)
        url = storage.join(index.path, SIDECARS, name, shard.name)
        yield SidecarJob(url, targets.url, name, targets.spec.rate_hz, described, round(seconds, 6), reduction)


def sample_rows(samples: SamplesFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """What a job needs of each sample, with its number."""
    return enumerate(row for table in samples.tables(ROW_COLUMNS) for row in table.to_pylist())


def sample_places(samples: SamplesFile, targets: TargetSet) -> TargetPlaces:
    """Where each sample's target is."""
    digests = [from_hex(table["digest"].combine_chunks()) for table in samples.tables(["digest"])]
    (places,), _ = find_places(targets, [np.concatenate([np.empty(0, np.uint64), *digests])])
    return places


def with_target(samples: SamplesFile, places: TargetPlaces) -> tuple[NDArray[np.bool_], list[str], int]:
    """Of each sample whether it has a target, of the sound that the shards have; and of those with audio that have
    none the ids of the first, and how many they are. A sample of text alone needs none.
    """
    has_target_S, ids, count, first = np.zeros(len(samples), bool), list[str](), 0, 0
    for table in samples.tables(["id", "source", "duration"]):
        part = slice(first, first + len(table))
        first = part.stop
        written_S = np.array(pc.fill_null(table["source"], "").to_pylist(), dtype="S16")
        has_target_S[part] = (places.status_M[part] == OK) & ((places.source_M[part] == written_S) | (written_S == b""))
        missing_S = np.flatnonzero(~has_target_S[part] & (table["duration"].to_numpy() > 0))
        count += len(missing_S)
        ids += table["id"].take(pa.array(missing_S[: max(0, MAX_LISTED - len(ids))])).to_pylist()
    return has_target_S, ids, count


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
