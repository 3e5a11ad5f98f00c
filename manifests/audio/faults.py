"""Whose fault is it that a file cannot be read? The row's where the evidence says so; else the environment's.

A share that went away, rights that expired, a disk that cannot read, too many open files: none of it says anything
about the audio, and all of it may pass. So only the errors that a name alone explains are a row's.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from coat.manifests import addresses, storage
from coat.manifests.audio.clip import AudioError
from coat.manifests.errors import InputError, ReadFault, one_line

ROW_ERRNOS = {errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO}
DOUBTED = ("unreadable", "truncated", "not_finite")  # reasons of an AudioError that a failed read may look like
HELD_BYTES = 2**30  # a larger file is read through for a second look, and not held in memory
BLOCK_BYTES = 2**20


@contextmanager
def reading(path: str) -> Iterator[None]:
    """AudioError or ReadFault for what the operating system or an object store raises while `path` is read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as e:
        raise AudioError("missing", f"{path}: no such file") from e
    except OSError as e:
        if e.errno in ROW_ERRNOS and not isinstance(e, PermissionError):
            raise AudioError("unreadable", f"{path!r}: {one_line(e, 200)}") from e
        raise ReadFault(f"{path}: cannot be read here ({one_line(e, 200)})") from e
    except InputError as e:  # the driver of an object store is not installed here
        raise ReadFault(one_line(e)) from e
    except EOFError as e:  # what holds it ends before it
        raise AudioError("truncated", f"{path}: {one_line(e)}") from e
    except ValueError as e:  # a NUL in the name, an address that says nothing, a tar that was written anew
        raise AudioError("unreadable", f"{path!r}: {one_line(e)}") from e


def parse_address(path: str) -> addresses.Address:
    """AudioError where coat opens no such address, on whatever machine."""
    try:
        address = addresses.parse(path)
        storage.protocol(address.url)
    except ValueError as e:  # InputError, too
        raise AudioError("unreadable", f"{path!r}: {one_line(e, 200)}") from e
    return address


def second_look(path: str) -> io.BytesIO | None:
    """The bytes of a local file, read by ourselves from its first to its last; None where they are too many to hold, or
    were read by ourselves before: those of a store, and of a part of a file.

    libsndfile does not tell a read that failed from a file that ends: what it calls cut short or unreadable is
    believed only once its bytes were had. ReadFault where they are not to be had. None, too, for what is no file.
    """
    if addresses.is_address(path) or not storage.is_local(path):
        return None
    name, kept, done = storage.local_path(path), io.BytesIO(), 0
    with reading(path):
        if not stat.S_ISREG(os.stat(name).st_mode):
            return None
        with open(name, "rb", buffering=0) as f:
            size = os.fstat(f.fileno()).st_size
            while block := f.read(BLOCK_BYTES):
                done += len(block)
                if size <= HELD_BYTES:
                    kept.write(block)
        if done < size:
            raise OSError(errno.EIO, f"{done} bytes of {size} could be read")
    return kept if size <= HELD_BYTES else None


def is_there(path: str) -> bool:
    """Whether a file or object is there, or the one that holds what lies at an address. ReadFault where that cannot be
    told."""
    path = addresses.container(path)
    with reading(path):
        if not storage.is_local(path):
            return storage.exists(path)
        try:
            os.stat(storage.local_path(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def holds_anything(folder: str) -> bool:
    """Whether a folder is there and not empty, or a prefix has objects. ReadFault where that cannot be told."""
    with reading(folder):
        if not storage.is_local(folder):
            return storage.exists(folder)  # one key is asked for, not all of them
        try:
            with os.scandir(storage.local_path(folder)) as entries:
                return next(entries, None) is not None
        except (FileNotFoundError, NotADirectoryError):
            return False
