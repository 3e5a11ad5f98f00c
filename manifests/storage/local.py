"""Files of a disk: what `files.py` does with them. Errors are those of the system."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from coat.manifests.processes import this_process
from coat.manifests.storage.info import FileInfo


@contextlib.contextmanager
def nothing_below_a_file() -> Iterator[None]:
    """A path that goes through a file is not there, as a store would say."""
    try:
        yield
    except NotADirectoryError as e:
        raise FileNotFoundError(errno.ENOENT, "a part of its path is a file", e.filename) from e


def info(path: Path) -> FileInfo:
    with nothing_below_a_file():
        return info_of(str(path), path.stat())


def info_of(name: str, status: os.stat_result) -> FileInfo:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return FileInfo(name, status.st_size, modified, f"{status.st_mtime_ns:x}-{status.st_size:x}")


def read(path: Path) -> tuple[bytes, str]:
    """The whole file, and its stamp."""
    with nothing_below_a_file(), path.open("rb") as f:
        return f.read(), info_of("", os.fstat(f.fileno())).stamp


def read_range(path: Path, start: int, end: int) -> bytes:
    with nothing_below_a_file(), path.open("rb") as f:
        f.seek(start)
        return f.read(end - start)


def write(target: Path, data: bytes, sync: bool, replace: bool = True, parents: bool = True) -> bool:
    """By a temporary file, so that nobody sees a part. False where a file is there and `replace` is not given.

    `parents` False: of missing folders only the file's own is made; FileNotFoundError where more are missing.
    """
    target.parent.mkdir(parents=parents, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(target))
    fd, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}~{this_process()}~")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            if sync:
                os.fsync(f.fileno())
        temporary.chmod(0o644)
        if replace:
            os.replace(temporary, target)
            return True
        try:
            os.link(temporary, target)  # of several only one succeeds, on NFS too
        except FileExistsError:
            return False
        return True
    finally:
        temporary.unlink(missing_ok=True)


def names(folder: Path) -> list[str]:
    return os.listdir(folder)


def files(folder: Path) -> Iterator[FileInfo]:
    """All below a folder, at any depth."""
    for place, _, found in os.walk(folder):
        for name in found:
            path = os.path.join(place, name)
            with contextlib.suppress(FileNotFoundError):  # removed just now
                yield info_of(os.path.relpath(path, folder), os.stat(path))


def marked(folder: Path, mark: str) -> Iterator[tuple[str, FileInfo]]:
    """Folders directly inside that hold a file `mark`, each with what the disk says of it."""
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield name, info_of(f"{name}/{mark}", os.stat(f"{folder}/{name}/{mark}"))


def remove_tree(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
