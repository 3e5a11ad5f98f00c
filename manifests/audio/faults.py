"""Whose fault is it that a file cannot be read? The row's where the evidence says so; else the environment's.

A share that went away, rights that expired, a disk that cannot read, too many open files: none of it says anything
about the audio, and all of it may pass. So only the errors that a name alone explains are a row's.
"""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

from coat.manifests import storage
from coat.manifests.audio.clip import AudioError
from coat.manifests.errors import EnvironmentFault, InputError, one_line

ROW_ERRNOS = {errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO}
CONFIRM_BYTES = 2**30  # a larger file is read through to confirm a fault, and not held in memory
BLOCK_BYTES = 2**20


@contextmanager
def reading(path: str) -> Iterator[None]:
    """AudioError or EnvironmentFault for what the operating system or an object store raises while `path` is read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as e:
        raise AudioError("missing", f"{path}: no such file") from e
    except OSError as e:
        if e.errno in ROW_ERRNOS and not isinstance(e, PermissionError):
            raise AudioError("unreadable", f"{path!r}: {one_line(e, 200)}") from e
        raise EnvironmentFault(f"{path}: cannot be read here ({one_line(e, 200)})") from e
    except InputError as e:  # the driver of an object store is not installed here
        raise EnvironmentFault(one_line(e)) from e
    except ValueError as e:  # a NUL in the name
        raise AudioError("unreadable", f"{path!r}: {one_line(e, 200)}") from e


def check_protocol(path: str) -> None:
    """AudioError where coat opens no such address, on whatever machine."""
    try:
        storage.protocol(path)
    except InputError as e:
        raise AudioError("unreadable", f"{path!r}: {one_line(e, 200)}") from e


def read_whole(path: str) -> bytes:
    with reading(path):
        return storage.read_bytes(path)


def read_again(path: str) -> io.BytesIO | None:
    """The bytes of a local file, read by ourselves from its first to its last; None where they are too many to hold.

    libsndfile does not tell a read that failed from a file that ends: what it calls cut short or unreadable is
    believed only once its bytes were had. EnvironmentFault where they are not to be had.
    """
    kept = io.BytesIO()
    with reading(path), open(storage.local_path(path), "rb", buffering=0) as f:
        size, done = os.fstat(f.fileno()).st_size, 0
        while block := f.read(BLOCK_BYTES):
            done += len(block)
            if size <= CONFIRM_BYTES:
                kept.write(block)
        if done < size:
            raise OSError(errno.EIO, f"{done} bytes of {size} could be read")
    return kept if size <= CONFIRM_BYTES else None
