"""`coat verify`: read a store back and compare it with what its commits promised."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import zarr

from coat.manifests import files
from coat.manifests.errors import InputError, RunError
from coat.pipeline.store import FRAMES, ROWS, ROWS_SCHEMA, SPEC, UNITS, TargetSet, TargetStore

BLOCK_FRAMES = 65536  # read at a time when values are checked


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong. `unit` is None where it is the target set itself."""

    expert: str
    fingerprint: str
    unit: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.expert}/{self.fingerprint}{'/' + self.unit if self.unit else ''}: {self.message}"


@dataclass(frozen=True)
class Verified:
    """What was read, and what was wrong with it."""

    target_sets: int
    units: int
    frames: int
    bytes: int
    damages: tuple[Damage, ...]
    repaired: int = 0


def verify(store: str, repair: bool = False, on_unit: Callable[[int], None] = lambda n: None) -> Verified:
    """Check every committed unit: checksums, counts, spec, finite values, rows that tile the frames.

    With `repair` damaged units are dropped, so that the next extract makes them again. InputError
    where there is no store.
    """
    url = TargetStore(store).url
    damages: list[Damage] = []
    sets = units = frames = nbytes = repaired = 0
    for expert in files.list_names(url):
        for fingerprint in files.list_names(files.join(url, expert)):
            set_url = files.join(url, expert, fingerprint)
            sets += 1
            try:
                targets = TargetSet.open(set_url)
            except InputError as e:
                damages.append(Damage(expert, fingerprint, None, str(e)))
                continue
            for unit in files.list_names(files.join(set_url, UNITS)):
                units += 1
                try:
                    found, size = check_unit(targets, unit)
                    frames, nbytes = frames + found, nbytes + size
                except RunError as e:
                    damages.append(Damage(expert, fingerprint, unit, str(e)))
                    if repair:
                        remove(targets.unit_url(unit))
                        repaired += 1
                on_unit(1)
    if not sets:
        raise InputError(f"{store}: no target sets (<expert>/<fingerprint>/{SPEC}) in it; is this a store?")
    return Verified(sets, units, frames, nbytes, tuple(damages), repaired)


def check_unit(targets: TargetSet, unit: str) -> tuple[int, int]:
    """Frames and bytes of a sound unit; RunError says what is wrong with one that is not."""
    done = targets.read_done(unit)
    if done is None:
        raise RunError("no done.json; a commit was cut off, and its rows are not counted as done")
    check_rows(targets, unit, done["rows_xxh3"])
    rows = targets.read_rows(unit)
    if len(rows) != done["rows"]:
        raise RunError(f"{len(rows)} rows, done.json says {done['rows']}")
    array = open_unit(targets, unit)
    if array.shape != (done["frames"], targets.spec.dim) or array.dtype != np.dtype(targets.spec.dtype):
        raise RunError(f"frames are {array.dtype} {list(array.shape)}; expected {targets.spec.dtype}, {done['frames']}")
    first = 0
    for row in rows:
        if row.first != first or (row.frames > 0) != (row.status == "ok"):
            raise RunError(f"row {row.id!r}: frames {row.first}+{row.frames} with status {row.status} do not tile")
        first += row.frames
    if first != done["frames"]:
        raise RunError(f"rows hold {first} frames, done.json says {done['frames']}")
    digest = xxhash.xxh3_128()
    for block in blocks(array):
        if not np.isfinite(block).all():
            raise RunError("values that are not finite")
        digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    if digest.hexdigest() != done["xxh3"]:
        raise RunError("frames do not have the digest of done.json; the data were changed after the commit")
    return int(done["frames"]), int(done["bytes"])


def check_rows(targets: TargetSet, unit: str, expected: str) -> None:
    try:
        data = files.read_bytes(targets.unit_url(unit, ROWS))
        if xxhash.xxh3_128_hexdigest(data) != expected:
            raise RunError(f"{ROWS} does not have the digest of done.json; it was changed after the commit")
        if not pq.read_schema(pa.BufferReader(data)).equals(ROWS_SCHEMA):
            raise RunError(f"{ROWS} has other columns than this version of coat writes")
    except (FileNotFoundError, pa.ArrowException) as e:
        raise RunError(f"{ROWS}: cannot be read ({e})") from e


def open_unit(targets: TargetSet, unit: str) -> zarr.Array:
    try:
        return zarr.open_array(targets.unit_url(unit, FRAMES), mode="r")
    except (OSError, ValueError, KeyError, TypeError) as e:  # zarr.json missing, torn, or not of an array
        raise RunError(f"{FRAMES}: cannot be opened ({type(e).__name__}: {e})") from e


def blocks(array: zarr.Array) -> Iterator[np.ndarray]:
    for start in range(0, array.shape[0], BLOCK_FRAMES):
        try:
            yield np.asarray(array[start : start + BLOCK_FRAMES])
        except (OSError, ValueError, RuntimeError) as e:  # a torn shard, or a chunk whose CRC-32C is wrong
            raise RunError(f"{FRAMES}: frames {start}.. cannot be read ({type(e).__name__}: {e})") from e


def remove(url: str) -> None:
    fs, path = files.filesystem(url)
    fs.rm(path, recursive=True)
