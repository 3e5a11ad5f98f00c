"""Files of a store that several workers of a node need whole: each is downloaded once, to a temporary folder.

For audio that many rows are spans of. What is kept is bounded, and the file that was not used for longest goes first.
A file is kept under its address and stamp, so that one which changed is downloaded again. The disk is no condition:
where it does not take a file, the file is used from memory and not kept.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from coat.manifests.storage.files import info, read_stamped

KEPT_BYTES = 8 * 2**30  # at most, and at most a tenth of the disk that is free
KEPT_S = 6 * 3600.0  # since it was last used
DIGEST_BYTES = 16  # at the end of what is kept: a disk that lost power may hold anything
LOCKS = 64  # files: of two addresses that share one, one waits for the other


def read_once_a_node(url: str) -> bytes:
    """The bytes of a remote file. Errors as `storage.read_bytes`."""
    found = info(url)
    room = kept_bytes()
    folder = cache_folder()
    if folder is None or found.size > room:
        return read_stamped(url)[0]
    name = xxhash.xxh3_128_hexdigest(f"{url}\n{found.stamp}".encode())
    path = folder / name
    with lock(folder / f"lock-{int(name, 16) % LOCKS}"):
        with contextlib.suppress(OSError):
            kept = path.read_bytes()
            data, digest = kept[:-DIGEST_BYTES], kept[-DIGEST_BYTES:]
            if xxhash.xxh3_128_digest(data) == digest:
                os.utime(path)
                return data
        data, stamp = read_stamped(url)
        if stamp == found.stamp:  # it did not change in between
            keep(path, data, room)
        return data


def keep(path: Path, data: bytes, room: int) -> None:
    made = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        made_room(path.parent, room - len(data))
        made.write_bytes(data + xxhash.xxh3_128_digest(data))
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
