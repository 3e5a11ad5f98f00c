"""Files of a store that several workers of a node need: each is downloaded once, to a temporary folder.

Whole files that many rows are spans of, blocks of what is too large for that, and what was unpacked. What is kept is
bounded, and what was not used for longest goes first. It is kept under its address and stamp, so that a file which
changed is downloaded again. The disk is no condition: what it does not take is used from memory and not kept.
"""

import contextlib
import fcntl
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import xxhash

from coat.manifests.storage.files import info, read_range, read_stamped
from coat.manifests.storage.info import FileInfo
from coat.manifests.storage.urls import is_local

KEPT_BYTES = 8 * 2**30  # at most, and at most a tenth of the disk that is free
KEPT_S = 6 * 3600.0  # since it was last used
DIGEST_BYTES = 16  # at the end of what is kept: a disk that lost power may hold anything
LOCKS = 64  # files: of two addresses that share one, one waits for the other
BLOCK_BYTES = 8 * 2**20  # of a large file, downloaded at once: some hundred clips, one request
RECENT_S = 60.0  # so long a file of a store is taken to be the one that it was

whole: dict[str, int] = {}  # by name of what is kept: the inode whose digest this process has checked
recent: dict[str, tuple[float, FileInfo]] = {}  # by URL


def read_once_a_node(url: str) -> bytes:
    """The bytes of a remote file. Errors as `storage.read_bytes`."""
    found = info(url)

    def make() -> bytes:
        data, stamp = read_stamped(url)
        if stamp != found.stamp:  # it changed in between
            raise Changed(data)
        return data

    try:
        return read_kept(f"{url}\n{found.stamp}", make, nbytes=found.size)
    except Changed as e:
        return e.data


class Changed(Exception):
    """What was read is not what it was to be kept as."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data


def read_range_once_a_node(url: str, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a remote file, fewer where it ends before, out of blocks of BLOCK_BYTES."""
    found = recent_info(url)
    parts: list[bytes] = []
    for block in range(start // BLOCK_BYTES, -(-min(stop, found.size) // BLOCK_BYTES)):
        first, end = block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, found.size)
        make = lambda first=first, end=end: read_range(url, first, end)  # noqa: E731
        inside = max(start - first, 0), min(stop, end) - first
        parts.append(read_kept(f"{url}\n{found.stamp}\n{block}", make, *inside, nbytes=end - first))
    return b"".join(parts)


def open_blocks(url: str) -> BinaryIO:
    """A remote file as one that can be read anywhere, out of the same blocks."""
    return cast(BinaryIO, io.BufferedReader(Blocks(url), 2**16))


class Blocks(io.RawIOBase):
    def __init__(self, url: str) -> None:
        self.url, self.at, self.nbytes = url, 0, recent_info(url).size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.nbytes}[whence])
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        data = read_range_once_a_node(self.url, self.at, min(self.at + len(view), self.nbytes))
        view[: len(data)] = data
        self.at += len(data)
        return len(data)


def recent_info(url: str) -> FileInfo:
    """Of a remote file that was asked for within the last minute, what was said then."""
    if is_local(url):
        return info(url)
    asked, now = recent.get(url), time.monotonic()
    if asked is None or now - asked[0] > RECENT_S:
        if len(recent) > 4096:
            recent.clear()
        asked = recent[url] = now, info(url)
    return asked[1]


def recent_stamp(url: str) -> str:
    return recent_info(url).stamp


def recent_size(url: str) -> int:
    return recent_info(url).size


def read_kept(
    key: str, make: Callable[[], bytes | bytearray], start: int = 0, stop: int | None = None, nbytes: int | None = None
) -> bytes:
    """Bytes [start, stop) of what `make` gives, which is called once a node where the disk takes it.

    `nbytes`: how much that is, where it is known before.
    """
    folder, room = cache_folder(), kept_bytes()
    if folder is None or (nbytes or 0) > room:
        return part_of(make(), start, stop)
    path = folder / xxhash.xxh3_128_hexdigest(key.encode())
    found = read_part(path, start, stop) if path.name in whole else None
    if found is not None:
        return found
    with lock(folder / f"lock-{int(path.name, 16) % LOCKS}"):
        found = read_part(path, start, stop)
        if found is not None:
            return found
        data = make()
        if len(data) <= room:
            keep(path, data, room)
        return part_of(data, start, stop)


def part_of(data: bytes | bytearray, start: int, stop: int | None) -> bytes:
    return data[start:stop] if isinstance(data, bytes) else bytes(memoryview(data)[start:stop])


def read_part(path: Path, start: int, stop: int | None) -> bytes | None:
    """None where it is not there as a whole. The digest is checked of what is read to its end, and the first time that
    this process reads a part.
    """
    with contextlib.suppress(OSError), path.open("rb") as f:
        status = os.fstat(f.fileno())
        if stop is None or whole.get(path.name) != status.st_ino:
            kept = f.read()
            if xxhash.xxh3_128_digest(memoryview(kept)[:-DIGEST_BYTES]) != kept[-DIGEST_BYTES:]:
                return None
            whole[path.name] = status.st_ino
        os.utime(f.fileno())
        end = status.st_size - DIGEST_BYTES
        wanted = max(0, (end if stop is None else min(stop, end)) - f.seek(start))
        data = f.read(wanted)
        return data if len(data) == wanted else None
    return None


def keep(path: Path, data: bytes | bytearray, room: int) -> None:
    made = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        made_room(path.parent, room - len(data))
        with made.open("wb") as f:
            f.write(data)
            f.write(xxhash.xxh3_128_digest(data))
        os.replace(made, path)
    except OSError:  # a full disk, or a folder that was removed: it is not kept
        with contextlib.suppress(OSError):
            made.unlink()


def made_room(folder: Path, room: int) -> None:
    """Remove what was not used for long, until no more than `room` bytes are there."""
    held: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if not path.name.startswith("lock-"):
                status = path.stat()
                held.append((status.st_mtime, status.st_size, path))
    total, now = sum(size for _, size, _ in held), time.time()
    for used, size, path in sorted(held):
        if total <= room and now - used < KEPT_S:
            return
        path.unlink(missing_ok=True)
        total -= size


def kept_bytes() -> int:
    try:
        return min(KEPT_BYTES, shutil.disk_usage(tempfile.gettempdir()).free // 10)
    except OSError:
        return 0


def cache_folder() -> Path | None:
    """Of this user; None where it cannot be had."""
    folder = Path(tempfile.gettempdir()) / f"coat-downloads-{os.getuid()}"
    try:
        folder.mkdir(0o700, exist_ok=True)
        status = folder.stat(follow_symlinks=False)
    except OSError:
        return None
    return folder if status.st_uid == os.getuid() and folder.is_dir() else None


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Of all processes of this node; gone with the one that holds it. None where the disk cannot have it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
