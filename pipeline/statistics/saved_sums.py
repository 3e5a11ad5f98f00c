"""Sums that were saved: what a target set's units add to its statistics is read from their frames once.

    STORE/<expert>/<fingerprint>/statistics/<xxh3 of the file>.npz    sums over a group of units, and their names

A file's name is the digest of its bytes, so that damage is noticed; in it stands which units it is of, each with the
digest of its frames, so that a file is stale when one of them is gone or another. Such a file is dropped, and its
units are read again. Files are written as soon as they are known: what was killed goes on behind the last.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from coat.manifests import storage
from coat.manifests.targets.spec import Kind
from coat.pipeline.statistics.sums import Sums
from coat.pipeline.store.layout import FRAMES
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_reader import UnitFrames, dask_units

FOLDER = "statistics"
SUFFIX = ".npz"
GROUP_BYTES = 2**30  # of frames: the sums of 1280 dimensions are some 10 MB, 1 % of that
MAX_GROUPS = 64  # of one run; and that many files are kept before they are made one
UNITS_AT_ONCE = 4  # of which spans are read at once: of up to 128 MB each
FAN_IN = 4  # sums that wait to be added up: each is as large as a block where there are many dimensions


@dataclass(frozen=True)
class SetSums:
    """Sums over a target set. `dropped_files`: why each saved file that was not used was not."""

    sums: Sums
    units_read: tuple[str, ...]  # units whose frames had to be read now
    dropped_files: tuple[str, ...]


@dataclass(frozen=True)
class SumsJob:
    """Units whose sums one worker makes; small enough to send anywhere."""

    units: tuple[UnitFrames, ...]
    dim: int
    kind: Kind
    covariance: bool
    scheduler: Any = "threads"  # Dask's
    spans: tuple[tuple[tuple[int, int], ...], ...] | None = None  # (first frame, frames) of each unit; None: all of it

    @classmethod
    def of(cls, targets: TargetSet, units: Sequence[str], covariance: bool, scheduler: Any) -> "SumsJob":
        frames = (
            UnitFrames.of(targets.unit_url(u, FRAMES), int(targets.done[u]["frames"]), targets.spec) for u in units
        )
        return cls(tuple(frames), targets.spec.dim, targets.spec.kind, covariance, scheduler)


MakeSums = Callable[[Iterable[SumsJob]], Iterator[Sums]]


def sums_here(jobs: Iterable[SumsJob]) -> Iterator[Sums]:
    return map(sum_units, jobs)


@dataclass
class SavedSums:
    """What is saved of a target set, and what is in no file."""

    total: Sums
    used_files: list[str]
    dropped_files: dict[str, str]  # why each is not used
    all_units: dict[str, str]  # with frames, and their digest
    remaining: dict[str, str]

    @classmethod
    def read(
        cls, targets: TargetSet, covariance: bool, on_units: Callable[[int], None] = lambda n: None
    ) -> "SavedSums":
        remaining = {unit: str(done["xxh3"]) for unit, done in targets.done.items() if done["frames"]}
        saved = cls(Sums.zero(targets.spec.dim, targets.spec.kind, covariance), [], {}, dict(remaining), remaining)
        for name in saved_sums_files(targets):
            try:
                sums, units = read_sums(targets, name, saved.remaining, covariance)
            except UnusableSums as e:
                saved.dropped_files[name] = f"{FOLDER}/{name} is not used: {e}"
                continue
            saved.total += sums
            saved.used_files.append(name)
            saved.remaining = {unit: digest for unit, digest in saved.remaining.items() if unit not in units}
            on_units(len(units))
        return saved


def sum_target_set(
    targets: TargetSet,
    saved: SavedSums,
    covariance: bool,
    scheduler: Any = "threads",
    on_units: Callable[[int], None] = lambda n: None,
    make_sums: MakeSums = sums_here,
) -> SetSums:
    """Add up what is saved, read the units that are not in it, and save what they add.

    `make_sums` gives the sums of jobs in their order: here, or by workers.
    """
    total, used_files, dropped_files = saved.total, saved.used_files, saved.dropped_files
    groups = list(unit_groups(targets, sorted(saved.remaining)))
    jobs = (SumsJob.of(targets, group, covariance, scheduler) for group in groups)
    for group, group_sums in zip(groups, make_sums(jobs), strict=True):
        used_files.append(write_sums(targets, group_sums, {unit: saved.remaining[unit] for unit in group}))
        total += group_sums
        on_units(len(group))
    if len(used_files) > 2 * MAX_GROUPS:
        dropped_files |= dict.fromkeys(used_files, "")
        used_files = [write_sums(targets, total, saved.all_units)]
    for name in dropped_files.keys() - set(used_files):  # a damaged file is written again under its own name
        storage.remove(storage.join(targets.url, FOLDER, name))
    return SetSums(total, tuple(sorted(saved.remaining)), tuple(why for why in dropped_files.values() if why))


def unit_groups(targets: TargetSet, units: Sequence[str]) -> Iterator[list[str]]:
    """Units whose sums are saved together. Few files, however large the set: each is read whenever units are added."""
    sizes = [int(targets.done[unit]["bytes"]) for unit in units]
    limit = max(GROUP_BYTES, sum(sizes) // MAX_GROUPS)
    group: list[str] = []
    group_bytes = 0
    for unit, size in zip(units, sizes, strict=True):
        if group and group_bytes + size > limit:
            yield group
            group, group_bytes = [], 0
        group.append(unit)
        group_bytes += size
    if group:
        yield group


def sum_units(job: SumsJob) -> Sums:
    """A block is read and summed up in one task; sums are added as a tree, as they come."""
    if job.spans is not None:
        return sum_spans(job)
    import dask

    frames_ND = dask_units(job.units, job.dim)
    boxes = frames_ND.map_blocks(
        boxed_sums,
        kind=job.kind,
        covariance=job.covariance,
        chunks=((1,) * frames_ND.numblocks[0], (1,)),
        dtype=object,
        meta=np.empty((0, 0), object),
    )
    (total,) = dask.compute(boxes.sum(split_every={0: FAN_IN, 1: 1}), scheduler=job.scheduler)  # pyright: ignore
    return total


def sum_spans(job: SumsJob) -> Sums:
    assert job.spans is not None
    total = Sums.zero(job.dim, job.kind, job.covariance)
    with ThreadPoolExecutor(UNITS_AT_ONCE) as pool:
        for first in range(0, len(job.units), UNITS_AT_ONCE):
            group = slice(first, first + UNITS_AT_ONCE)
            found = pool.map(UnitFrames.read, job.units[group], job.spans[group])
            for frames_ND in (np.concatenate(of_unit) for of_unit in found):
                total += Sums.of(frames_ND.astype(np.float32), job.kind, job.covariance)
    return total


def boxed_sums(frames_ND: Any, kind: Kind, covariance: bool) -> Any:
    """As the one element of an array: Dask adds those up by their own `+`."""
    box = np.empty((1, 1), object)
    box[0, 0] = Sums.of(frames_ND, kind, covariance)
    return box


@contextmanager
def dask_scheduler(ray_address: str | None) -> Iterator[Any]:
    """Dask's scheduler: threads of this process, or the Ray cluster at an address. RunError where a task failed."""
    if ray_address is None:
        yield "threads"
        return
    from ray.util.dask import ray_dask_get

    from coat.pipeline.cluster.ray_connection import connected
    from coat.pipeline.cluster.resources import Cluster

    with connected(Cluster(workers=1, address=ray_address)):
        yield ray_dask_get


class UnusableSums(Exception):
    """Why a saved file cannot be used."""


def saved_sums_files(targets: TargetSet) -> list[str]:
    """Names without a digest's length are not ours: another writer's temporary file, pca.npz."""
    names = storage.list_names(storage.join(targets.url, FOLDER))
    return [n for n in names if n.endswith(SUFFIX) and len(n.removesuffix(SUFFIX)) == 32]


def read_sums(
    targets: TargetSet, name: str, remaining: dict[str, str], covariance: bool
) -> tuple[Sums, dict[str, str]]:
    try:
        data = storage.read_bytes(storage.join(targets.url, FOLDER, name))
    except FileNotFoundError as e:
        raise UnusableSums("another run has just dropped it") from e
    if xxhash.xxh3_128_hexdigest(data) != name.removesuffix(SUFFIX):
        raise UnusableSums("it was damaged")
    try:
        sums, units = Sums.from_bytes(data)
    except (ValueError, KeyError, zipfile.BadZipFile) as e:
        raise UnusableSums(f"this version of coat cannot read it ({e})") from e
    if not units.items() <= remaining.items():
        raise UnusableSums("its units are not those of the store any more, or are in another file")
    if covariance and sums.scatter_DD is None:
        raise UnusableSums("it has no covariance")
    return sums, units


def write_sums(targets: TargetSet, sums: Sums, units: dict[str, str]) -> str:
    data = sums.to_bytes(units)
    name = xxhash.xxh3_128_hexdigest(data) + SUFFIX
    storage.write_bytes(storage.join(targets.url, FOLDER, name), data)
    return name
