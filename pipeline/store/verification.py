"""`coat verify`: read a store back and compare it with what its commits promised."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import zarr

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError, RunError, Unreachable
from coat.pipeline.plan.changes import sounds
from coat.pipeline.store.rows import ROWS_SCHEMA
from coat.pipeline.store.target_set import DONE, FRAMES, ROWS, SPEC, UNITS, TargetSet, TargetStore
from coat.pipeline.store.unit_writer import ARRAY, done_digest

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
class Change:
    """A row whose sound is not what was heard, or cannot be heard any more."""

    expert: str
    fingerprint: str
    id: str
    message: str

    def __str__(self) -> str:
        return f"{self.expert}/{self.fingerprint}: {self.id}: {self.message}"


@dataclass(frozen=True)
class Verified:
    """What was read, and what was wrong with it."""

    target_sets: int
    units: int
    frames: int
    bytes: int
    damages: tuple[Damage, ...]
    repaired: int = 0
    changes: tuple[Change, ...] = ()


def verify(
    store: str,
    repair: bool = False,
    on_unit: Callable[[int], None] = lambda n: None,
    sources: Manifest | None = None,
) -> Verified:
    """Check every committed unit: checksums, counts, spec, finite values, rows that tile the frames.

    With `repair` damaged units are dropped, so that the next extract makes them again. With `sources` the
    audio of that manifest is decoded again and compared with what was heard. InputError where there is no
    store or no access to it, Unreachable where it does not answer: neither is taken for damage.
    """
    url = TargetStore(store).url
    damages: list[Damage] = []
    heard: list[Heard] = []
    sets = units = frames = nbytes = repaired = 0
    for expert in storage.list_names(url):
        for fingerprint in storage.list_names(storage.join(url, expert)):
            set_url = storage.join(url, expert, fingerprint)
            sets += 1
            try:
                targets = TargetSet.open(set_url)
            except InputError as e:
                again = "; `coat extract` of this expert writes it again where it is missing"
                damages.append(Damage(expert, fingerprint, None, f"{e}{again}"))
                continue
            sound: dict[str, dict[str, Any]] = {}
            for unit in storage.list_names(storage.join(set_url, UNITS)):
                units += 1
                try:
                    sound[unit] = check_unit(targets, unit)
                except Unreachable:
                    raise
                except PermissionError as e:
                    raise InputError(storage.no_access(targets.unit_url(unit), e)) from e
                except RunError as e:
                    damages.append(Damage(expert, fingerprint, unit, str(e)))
                    if repair:
                        storage.remove_folder(targets.unit_url(unit), DONE)
                        repaired += 1
                on_unit(1)
            frames += sum(int(done["frames"]) for done in sound.values())
            nbytes += sum(int(done["bytes"]) for done in sound.values())
            if sources is not None:
                heard.append(Heard(expert, fingerprint, sources_of(targets, sound)))
    if not sets:
        raise InputError(f"{store}: no target sets (<expert>/<fingerprint>/{SPEC}) in it; is this a store?")
    changes = tuple(changed(sources, heard)) if sources is not None else ()
    return Verified(sets, units, frames, nbytes, tuple(damages), repaired, changes)


@dataclass(frozen=True)
class Heard:
    """What the sound units of one target set heard."""

    expert: str
    fingerprint: str
    sources: Mapping[str, str | None]  # Clip.digest by Utterance.digest


def sources_of(targets: TargetSet, sound: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    oldest_first = sorted(sound, key=lambda unit: (sound[unit].get("finished_at", ""), unit))
    return {row.digest: row.source for unit in oldest_first for row in targets.read_rows(unit)}


def changed(manifest: Manifest, heard: Sequence[Heard]) -> Iterator[Change]:
    """Each utterance is decoded once, however many experts have heard it."""
    wanted = (u for u in manifest if any(h.sources.get(u.digest) for h in heard))
    for u, now, fault in sounds(wanted):
        for h in heard:
            then = h.sources.get(u.digest)
            if then and now != then:
                what = f"cannot be heard any more ({fault})" if now is None else "sounds different from what was heard"
                yield Change(h.expert, h.fingerprint, u.id, f"{u.audio}: {what}")


def check_unit(targets: TargetSet, unit: str) -> dict[str, Any]:
    """The done.json of a sound unit; RunError says what is wrong with one that is not."""
    done = targets.read_done(unit)
    if done is None:
        raise RunError("no done.json; a commit was cut off, and its rows are not counted as done")
    if (
        storage.read_bytes(targets.unit_url(unit, DONE)) != storage.to_json(done)
        or done_digest(done) != done["done_xxh3"]
    ):
        raise RunError(f"{DONE} does not have its own digest; it was changed after the commit")
    check_rows(targets, unit, done["rows_xxh3"])
    rows = targets.read_rows(unit)
    if len(rows) != done["rows"]:
        raise RunError(f"{len(rows)} rows, done.json says {done['rows']}")
    check_array(targets, unit, done["array_xxh3"])
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
    for block in blocks(targets.unit_url(unit, FRAMES), array):
        if not np.isfinite(block).all():
            raise RunError("values that are not finite")
        digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    if digest.hexdigest() != done["xxh3"]:
        raise RunError("frames do not have the digest of done.json; the data were changed after the commit")
    return done


def check_rows(targets: TargetSet, unit: str, expected: str) -> None:
    try:
        data = storage.read_bytes(targets.unit_url(unit, ROWS))
        if xxhash.xxh3_128_hexdigest(data) != expected:
            raise RunError(f"{ROWS} does not have the digest of done.json; it was changed after the commit")
        if not pq.read_schema(pa.BufferReader(data)).equals(ROWS_SCHEMA):
            raise RunError(f"{ROWS} has other columns than this version of coat writes")
    except (FileNotFoundError, pa.ArrowException) as e:
        raise RunError(f"{ROWS}: cannot be read ({e})") from e


def check_array(targets: TargetSet, unit: str, expected: str) -> None:
    """Before Zarr believes it: metadata that lie could ask for any memory."""
    try:
        data = storage.read_bytes(targets.unit_url(unit, FRAMES, ARRAY))
    except FileNotFoundError as e:
        raise RunError(f"{FRAMES}: cannot be opened (no {ARRAY})") from e
    if xxhash.xxh3_128_hexdigest(data) != expected:
        raise RunError(f"{FRAMES}/{ARRAY} does not have the digest of done.json; it was changed after the commit")


def open_unit(targets: TargetSet, unit: str) -> zarr.Array:
    try:
        url = targets.unit_url(unit, FRAMES)
        return storage.request(url, lambda: zarr.open_array(url, mode="r"))
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as e:  # zarr.json missing, torn, or not of an array
        raise RunError(f"{FRAMES}: cannot be opened ({type(e).__name__}: {e})") from e


def blocks(url: str, array: zarr.Array) -> Iterator[np.ndarray]:
    for start in range(0, array.shape[0], BLOCK_FRAMES):
        try:
            yield storage.request(url, partial(read_block, array, start))
        except (PermissionError, Unreachable):
            raise
        except (OSError, ValueError, RuntimeError) as e:  # a torn shard, or a chunk whose CRC-32C is wrong
            raise RunError(f"{FRAMES}: frames {start}.. cannot be read ({type(e).__name__}: {e})") from e


def read_block(array: zarr.Array, start: int) -> np.ndarray:
    return np.asarray(array[start : start + BLOCK_FRAMES])
