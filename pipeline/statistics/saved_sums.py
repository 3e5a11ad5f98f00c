"""Sums that were saved: what a target set's units add to its statistics is read from their frames once.

    STORE/<expert>/<fingerprint>/statistics/<xxh3 of the file>.npz    sums over a group of units, and their names

A file's name is the digest of its bytes, so that damage is noticed; in it stands which units it is of, each with the
digest of its frames, so that a file is stale when one of them is gone or another. Such a file is dropped, and what it
was of is read again. Files are written as soon as they are known: what was killed goes on behind the last.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from coat.manifests import storage
from coat.manifests.targets.spec import Kind
from coat.pipeline.statistics.sums import Sums
from coat.pipeline.store.target_set import TargetSet

FOLDER = "statistics"
SUFFIX = ".npz"
GROUP_BYTES = 2**30  # of frames: the sums of 1280 dimensions are some 10 MB, 1 % of that
MOST_GROUPS = 64  # of one run; and that many files are kept before they are made one
FAN_IN = 4  # sums that wait to be added up: each is as large as a block where there are many dimensions


@dataclass(frozen=True)
class Gathered:
    """Sums over a target set. `dropped` says which saved files were not used, and why."""

    sums: Sums
    read: tuple[str, ...]  # units whose frames had to be read now
    dropped: tuple[str, ...]


def gather(
    targets: TargetSet, covariance: bool, scheduler: Any = "threads", on_units: Callable[[int], None] = lambda n: None
) -> Gathered:
    """Add up what is saved, read the units that are not in it, and save what they add."""
    kind, dim = targets.spec.kind, targets.spec.dim
    total = Sums.nothing(dim, kind, covariance)
    left = {unit: str(done["xxh3"]) for unit, done in targets.done.items() if done["frames"]}
    every = dict(left)
    kept, dropped = [], {}
    for name in saved_files(targets):
        try:
            sums, units = read_file(targets, name, left, covariance)
        except Unusable as e:
            dropped[name] = f"{FOLDER}/{name} is not used: {e}"
            continue
        total += sums
        kept.append(name)
        left = {unit: digest for unit, digest in left.items() if unit not in units}
        on_units(len(units))
    for group in groups(targets, sorted(left)):
        found = sums_of_units(targets, group, covariance, scheduler)
        kept.append(write_file(targets, found, {unit: left[unit] for unit in group}))
        total += found
        on_units(len(group))
    if len(kept) > 2 * MOST_GROUPS:
        dropped |= dict.fromkeys(kept, "")
        kept = [write_file(targets, total, every)]
    for name in dropped.keys() - kept:  # a damaged file is written again under its own name
        storage.remove(storage.join(targets.url, FOLDER, name))
    return Gathered(total, tuple(sorted(left)), tuple(why for why in dropped.values() if why))


def groups(targets: TargetSet, units: Sequence[str]) -> Iterator[list[str]]:
    """Units whose sums are saved together. Few files, however large the set: each is read whenever units are added."""
    sizes = [int(targets.done[unit]["bytes"]) for unit in units]
    limit = max(GROUP_BYTES, sum(sizes) // MOST_GROUPS)
    group: list[str] = []
    held = 0
    for unit, size in zip(units, sizes, strict=True):
        if group and held + size > limit:
            yield group
            group, held = [], 0
        group.append(unit)
        held += size
    if group:
        yield group


def sums_of_units(targets: TargetSet, units: Sequence[str], covariance: bool, scheduler: Any) -> Sums:
    """A block is read and summed up in one task; sums are added as a tree, as they come."""
    import dask

    frames_ND = targets.dask(units)
    boxes = frames_ND.map_blocks(
        boxed_sums,
        kind=targets.spec.kind,
        covariance=covariance,
        chunks=((1,) * frames_ND.numblocks[0], (1,)),
        dtype=object,
        meta=np.empty((0, 0), object),
    )
    (total,) = dask.compute(boxes.sum(split_every={0: FAN_IN, 1: 1}), scheduler=scheduler)  # pyright: ignore
    return total


def boxed_sums(frames_ND: Any, kind: Kind, covariance: bool) -> Any:
    """As the one element of an array: Dask adds those up by their own `+`."""
    box = np.empty((1, 1), object)
    box[0, 0] = Sums.of(frames_ND, kind, covariance)
    return box


@contextmanager
def scheduler_at(ray_address: str | None) -> Iterator[Any]:
    """Dask's scheduler: threads of this process, or the Ray cluster at an address. RunError where a task failed."""
    if ray_address is None:
        yield "threads"
        return
    from ray.util.dask import ray_dask_get

    from coat.pipeline.cluster.ray_connection import connected
    from coat.pipeline.cluster.resources import Cluster

    with connected(Cluster(workers=1, address=ray_address)):
        yield ray_dask_get


class Unusable(Exception):
    """A saved file that does not help; why."""


def saved_files(targets: TargetSet) -> list[str]:
    """Names without a digest's length are not ours: another writer's temporary file, pca.npz."""
    names = storage.list_names(storage.join(targets.url, FOLDER))
    return [n for n in names if n.endswith(SUFFIX) and len(n.removesuffix(SUFFIX)) == 32]


def read_file(targets: TargetSet, name: str, left: dict[str, str], covariance: bool) -> tuple[Sums, dict[str, str]]:
    try:
        data = storage.read_bytes(storage.join(targets.url, FOLDER, name))
    except FileNotFoundError as e:
        raise Unusable("another run has just dropped it") from e
    if xxhash.xxh3_128_hexdigest(data) != name.removesuffix(SUFFIX):
        raise Unusable("it was damaged")
    try:
        sums, units = Sums.from_bytes(data)
    except (ValueError, KeyError, zipfile.BadZipFile) as e:
        raise Unusable(f"this version of coat cannot read it ({e})") from e
    if not units.items() <= left.items():
        raise Unusable("its units are not those of the store any more, or are in another file")
    if covariance and sums.scatter_DD is None:
        raise Unusable("it has no covariance")
    return sums, units


def write_file(targets: TargetSet, sums: Sums, units: dict[str, str]) -> str:
    data = sums.to_bytes(units)
    name = xxhash.xxh3_128_hexdigest(data) + SUFFIX
    storage.write_bytes(storage.join(targets.url, FOLDER, name), data)
    return name
