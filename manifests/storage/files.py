"""Files by URL, wherever they lie. The words of `storage`: everything else of coat calls these.

FileNotFoundError, PermissionError and FileExistsError are the same for a disk and a store. Unreachable: a store that
does not answer, after all that its driver has tried. Functions that say so turn some of them into one line for people.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from coat.manifests.errors import InputError, NoAccess, RunError, one_line
from coat.manifests.storage import local, remote
from coat.manifests.storage.drivers import translated
from coat.manifests.storage.info import FileInfo
from coat.manifests.storage.urls import is_local, join, local_path, protocol

REQUESTS = 64  # of many small files, at the same time: stores answer slowly, but many at once
ORDERED = ("s3", "s3a", "gs", "gcs")  # whose listings begin where they are asked to

Item = TypeVar("Item")
T = TypeVar("T")


def request(url: str, call: Callable[[], T]) -> T:
    """What `call` gives, which reads or writes `url` by itself; a remote store's errors become those above."""
    return call() if is_local(url) else translated(url, call)


def info(url: str) -> FileInfo:
    """Of one file. FileNotFoundError where there is none."""
    return local.info(local_path(url)) if is_local(url) else remote.info(url)


def size(url: str) -> int:
    """Bytes of a file. FileNotFoundError where there is none."""
    return info(url).size


def exists(url: str) -> bool:
    """Whether a file is there, or a folder (of a store: with something in it). NoAccess where we may not look."""
    try:
        return local_path(url).exists() if is_local(url) else remote.has_any(url)
    except FileNotFoundError:  # no such bucket
        return False
    except PermissionError as e:
        raise NoAccess(no_access(url, e)) from e


def is_file(url: str) -> bool:
    """Whether a file is there, and no folder. NoAccess where we may not look."""
    try:
        return local_path(url).is_file() if is_local(url) else bool(remote.info(url))
    except FileNotFoundError:
        return False
    except PermissionError as e:
        raise NoAccess(no_access(url, e)) from e


def read_bytes(url: str) -> bytes:
    """The whole file. FileNotFoundError where there is none."""
    return read_stamped(url)[0]


def read_stamped(url: str) -> tuple[bytes, str]:
    """The whole file, and its `FileInfo.stamp`."""
    return local.read(local_path(url)) if is_local(url) else remote.read(url)


def read_range(url: str, start: int, end: int) -> bytes:
    """Bytes [start, end) of a file, in one request; fewer where it ends before."""
    return read_ranges(url, [(start, end)])[0]


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Several [start, end) of one file; of a store many at a time, and what lies close in one request."""
    if is_local(url):
        return [local.read_range(local_path(url), start, end) for start, end in ranges]
    return remote.read_ranges(url, ranges) if ranges else []


def in_parallel(
    call: Callable[[Item], T], items: Iterable[Item], requests: int = REQUESTS, ahead_of_caller: int | None = None
) -> Iterator[T]:
    """`call` of each item, in order, so many at a time and not far ahead of the caller: 8 times as many, or as said."""
    left = iter(items)
    with ThreadPoolExecutor(requests, thread_name_prefix="storage") as pool:
        while ahead := list(islice(left, ahead_of_caller or 8 * requests)):
            yield from pool.map(call, ahead)


def read_many(urls: Iterable[str], requests: int = REQUESTS) -> Iterator[bytes | None]:
    """Whole files in the order of their URLs, so many at a time; None for one that is not there."""
    return in_parallel(read_if_there, urls, requests, requests)


def read_if_there(url: str) -> bytes | None:
    try:
        return read_bytes(url)
    except FileNotFoundError:
        return None


def open_stream(url: str) -> BinaryIO:
    """A file to be read piece by piece. FileNotFoundError where there is none."""
    return local_path(url).open("rb") if is_local(url) else remote.open_stream(url)


def read_json(url: str) -> Any:
    """Parsed JSON; InputError names the file where it is not JSON, NoAccess where it may not be read."""
    try:
        data = read_bytes(url)
    except PermissionError as e:
        raise NoAccess(no_access(url, e)) from e
    try:
        return json.loads(data)
    except ValueError as e:
        raise InputError(f"{url}: expected JSON ({e})") from e


def to_json(value: Any, indent: int | None = 2) -> bytes:
    """JSON with sorted keys, so that equal values give equal bytes."""
    return (json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_bytes(url: str, data: bytes, sync: bool = True, parents: bool = True) -> None:
    """Write a whole file so that readers see all of it or nothing.

    `sync` False: a power cut may lose it. `parents` False: of missing folders only the file's own is made, so that what
    was removed meanwhile is not made again (InputError). InputError where it may not be written there, RunError where
    the disk or the store does not take it.
    """
    with write_errors(url):
        if is_local(url):
            local.write(local_path(url), data, sync, parents=parents)
        else:
            remote.put(url, data)


def put_if_absent(url: str, data: bytes) -> bool:
    """Write a whole file where none is yet; False where one is there. Of several writers exactly one gets True.

    Errors as `write_bytes`. Where the answer of a store is lost, the put is tried again and finds its own object. So
    what has our bytes is ours, and writers must not write equal bytes: they name their attempt, or their run.
    """
    with write_errors(url):
        if is_local(url):
            return local.write(local_path(url), data, sync=True, replace=False)
        try:
            remote.put(url, data, absent=True)
        except FileExistsError:
            return read_bytes(url) == data
        return True


def upload(path: Path, url: str) -> None:
    """Put a local file into an object store. OSError or RunError where the store does not take it."""
    remote.put(url, path)


@contextlib.contextmanager
def write_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError, FileNotFoundError) as e:
        why = f"{e.filename}: {e.strerror}" if e.filename and e.filename != url else e.strerror or one_line(e)
        raise InputError(f"{url}: cannot be written there ({why}); choose another place") from e
    except OSError as e:
        raise RunError(f"{url}: cannot be written ({e.strerror or one_line(e)}); see to that, and run again") from e


def no_access(url: str, error: Exception) -> str:
    why = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    return f"{url}: no access ({why}); check the address and the credentials"


@contextlib.contextmanager
def listing_errors(url: str) -> Iterator[None]:
    """A folder that is not there holds nothing."""
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield
    except PermissionError as e:
        raise NoAccess(no_access(url, e)) from e


def list_names(url: str) -> list[str]:
    """Names directly inside a folder, sorted; empty where there is no such folder. NoAccess where we may not look."""
    found: list[str] = []
    with listing_errors(url):
        found = local.names(local_path(url)) if is_local(url) else remote.names(url)
    return sorted(found)


def list_files(url: str, parts: Sequence[str] = ()) -> list[FileInfo]:
    """All files below a folder, at any depth; empty where there is no such folder. NoAccess where we may not look.

    `parts`: names at which a long listing may be cut, ascending, so that its parts are listed at the same time.
    """
    return list_where(url, parts, lambda name: True)


def list_where(url: str, parts: Sequence[str], wanted: Callable[[str], bool]) -> list[FileInfo]:
    return list(collect_files(url, parts, wanted, lambda file: file))


def collect_files(
    url: str, parts: Sequence[str], wanted: Callable[[str], bool], kept: Callable[[FileInfo], T]
) -> Iterator[T]:
    """What is `kept` of each file whose name is `wanted`: of hundreds of thousands the rest is let go at once."""
    with listing_errors(url):
        if is_local(url):
            yield from (kept(f) for f in local.files(local_path(url)) if wanted(f.name))
            return
        bounds = list(zip(["", *parts], [*parts, ""], strict=True)) if protocol(url) in ORDERED else [("", "")]
        for part in in_parallel(lambda b: [kept(f) for f in remote.files(url, *b, wanted)], bounds, len(bounds)):
            yield from part


def marked_stamps(url: str, mark: str, parts: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Folders directly inside `url` that hold a file named `mark`, with its stamp; `parts` as `list_files`."""
    if is_local(url):
        with listing_errors(url):
            yield from ((name, file.stamp) for name, file in local.marked(local_path(url), mark))
        return
    end = f"/{mark}"
    yield from collect_files(
        url,
        parts,
        lambda name: name.endswith(end) and name.count("/") == 1,
        lambda file: (file.name[: -len(end)], file.stamp),
    )


def remove(url: str) -> None:
    """One file; it need not be there."""
    if is_local(url):
        local_path(url).unlink(missing_ok=True)
    else:
        remote.remove(url)


def remove_if_empty(url: str) -> None:
    """A local folder that holds nothing; object stores have no folders."""
    if is_local(url):
        with contextlib.suppress(OSError):
            local_path(url).rmdir()


def remove_tree(url: str) -> None:
    """A folder and all in it. Parts of it, or all, may be gone already: two processes may remove it together."""
    with contextlib.suppress(FileNotFoundError):
        if is_local(url):
            local.remove_tree(local_path(url))
        else:
            remote.remove_tree(url)


def remove_folder(url: str, first: str) -> None:
    """As `remove_tree`; the file `first` goes before the others, so that a cut leaves no folder that has it."""
    remove(join(url, first))
    remove_tree(url)
