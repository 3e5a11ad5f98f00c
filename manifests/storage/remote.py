"""Objects of a bucket: what `files.py` does with them. Errors as `drivers.translated` gives them."""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from coat.manifests.errors import InputError
from coat.manifests.storage import http
from coat.manifests.storage.drivers import open_store, translated
from coat.manifests.storage.info import FileInfo
from coat.manifests.storage.urls import is_local, protocol

if TYPE_CHECKING:
    from obstore.store import ObjectStore

STREAM_BYTES = 8 * 2**20  # that a stream reads at a time
PAGE = 1000  # objects of a listing or a removal, in one request: as many as S3 takes
# Larger objects are put in parts. What is smaller is put at once: an upload in parts that is cut off leaves parts that
# nobody sees and somebody pays.
PUT_BYTES = 2**30
PART_BYTES = 2**28

T = TypeVar("T")


def object_store(url: str) -> "tuple[ObjectStore, str]":
    """obstore's store of a URL's bucket and the key inside it, for readers of their own (Zarr); call by `request`."""
    assert not is_local(url), url
    if http.is_http(url):
        raise InputError(f"{url}: a file of a web server can be read, and nothing else; expected a folder or a bucket")
    store, key = open_store(url, protocol(url))
    return store, key.rstrip("/")


def info_of(name: str, found: Any) -> FileInfo:
    """`stamp` is the ETag, which Azure gives with quotes and without; where there is none, time and size."""
    tag = (found["e_tag"] or "").strip('"')
    stamp = tag or f"{found['last_modified'].timestamp():.6f}-{found['size']}"
    return FileInfo(name, found["size"], found["last_modified"], stamp)


def info(url: str) -> FileInfo:
    if http.is_http(url):
        return http.info(url)
    store, key = object_store(url)
    return info_of(url, translated(url, lambda: store.head(key)))


def has_any(url: str) -> bool:
    """Whether an object is there, or some below it."""
    if http.is_http(url):
        return is_there(url)
    store, key = object_store(url)
    try:
        translated(url, lambda: store.head(key))
    except FileNotFoundError:
        found = store.list(key, chunk_size=1)
        return translated(url, lambda: any(True for _ in found))
    return True


def is_there(url: str) -> bool:
    try:
        http.info(url)
    except FileNotFoundError:
        return False
    return True


def read(url: str) -> tuple[bytes, str]:
    """The whole object, and its stamp."""
    if http.is_http(url):
        return http.read(url)
    store, key = object_store(url)

    def get() -> tuple[bytes, str]:
        found = store.get(key)
        return bytes(found.bytes()), info_of("", found.meta).stamp

    return translated(url, get)


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Several [start, end), many at a time; what lies close is fetched together."""
    if http.is_http(url):
        return [http.read_range(url, start, end) for start, end in ranges]
    store, key = object_store(url)
    starts, ends = [start for start, _ in ranges], [end for _, end in ranges]
    return translated(url, lambda: [bytes(b) for b in store.get_ranges(key, starts=starts, ends=ends)])


def open_stream(url: str) -> BinaryIO:
    if http.is_http(url):
        return io.BytesIO(http.read(url)[0])
    store, key = object_store(url)
    import obstore

    reader = translated(url, lambda: obstore.open_reader(store, key, buffer_size=STREAM_BYTES))
    return cast(BinaryIO, io.BufferedReader(RemoteFile(url, reader), STREAM_BYTES))


class RemoteFile(io.RawIOBase):
    """obstore's reader, with our errors."""

    def __init__(self, url: str, reader: Any) -> None:
        self.url, self.reader = url, reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return cast(int, self.reader.seek(offset, whence))

    def tell(self) -> int:
        return cast(int, self.reader.tell())

    def readinto(self, buffer: Any) -> int:
        data = translated(self.url, lambda: self.reader.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def put(url: str, data: bytes | Path, absent: bool = False) -> None:
    """`absent`: FileExistsError where an object is there; of several writers only one succeeds."""
    store, key = object_store(url)
    nbytes = data.stat().st_size if isinstance(data, Path) else len(data)
    how: dict[str, Any] = {"mode": "create"} if absent else {}
    if nbytes > PUT_BYTES:
        how |= {"use_multipart": True, "chunk_size": PART_BYTES, "max_concurrency": 2}
    else:
        how |= {"use_multipart": False}
    translated(url, lambda: store.put(key, data, **how))


def names(url: str) -> list[str]:
    """Directly below, folders included."""
    store, key = object_store(url)
    found = translated(url, lambda: store.list_with_delimiter(key or None))
    paths = [*found["common_prefixes"], *(o["path"] for o in found["objects"])]
    return [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]


def files(
    url: str, after: str = "", before: str = "", wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[FileInfo]:
    """All below whose name is `wanted`, at any depth, in order; `after` and `before` bound the names, both left out."""
    store, key = object_store(url)
    base = f"{key}/" if key else ""
    offset = f"{base}{after}" if after else None
    pages = translated(url, lambda: iter(store.list(key or None, offset=offset, chunk_size=PAGE)))
    while page := next_page(url, pages):
        for found in page:
            name = found["path"].removeprefix(base)
            if before and name >= before:
                return
            if wanted(name):
                yield info_of(name, found)


def next_page(url: str, pages: Iterator[Any]) -> Any:
    step: Callable[[], Any] = lambda: next(pages, None)  # noqa: E731
    return translated(url, step)


def remove(url: str, keys: Sequence[str] | None = None) -> None:
    """One object, or those with these `keys` in its bucket; they need not be there."""
    store, key = object_store(url)
    keys = [key] if keys is None else keys
    for first in range(0, len(keys), PAGE):
        page = keys[first : first + PAGE]
        with contextlib.suppress(FileNotFoundError):  # Azure says it, S3 does not
            translated(url, lambda page=page: store.delete(page))


def remove_tree(url: str) -> None:
    key = object_store(url)[1]
    remove(url, [f"{key}/{found.name}" for found in files(url)])
