"""A span of a file, in bytes: what a format stores as it is, one after the other (Arrow tables, archives)."""

import io
from dataclasses import dataclass

from coat.manifests import storage


@dataclass(frozen=True)
class ByteRange:
    url: str
    offset: int
    nbytes: int

    def open(self, keep: bool = False) -> io.BytesIO:
        """Of a store, blocks are downloaded once a node, whatever `keep` is: spans lie close to each other."""
        return io.BytesIO(read_span(self.url, self.offset, self.offset + self.nbytes))

    def size(self) -> int:
        return self.nbytes

    def digest(self) -> str:
        return f"{self} {storage.info(self.url).stamp}"

    def __str__(self) -> str:
        return f"{self.url}#offset={self.offset}&size={self.nbytes}"


def read_span(url: str, start: int, stop: int) -> bytes:
    """Bytes [start, stop). EOFError where the file ends before."""
    if storage.is_local(url):
        size = storage.size(url)  # first: it may be less than memory can hold of what is asked
        data = storage.read_range(url, start, stop) if stop <= size else b""
    else:
        data, size = storage.read_range_once_a_node(url, start, stop), storage.recent_size(url)
    if len(data) < stop - start:
        raise EOFError(f"the file has {size} bytes, not {stop}: it is cut short, or was written anew; import it again")
    return data
