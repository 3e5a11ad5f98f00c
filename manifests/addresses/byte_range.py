"""A span of a file, in bytes: what a format stores as it is, one after the other (Arrow tables, archives)."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    return read_parts(url, (start, stop))[0]


def read_parts(url: str, edges: Sequence[int]) -> list[bytes]:
    """The bytes between each two edges. EOFError where the file ends before the last."""
    start, stop = edges[0], edges[-1]
    if storage.is_local(url):
        with storage.local_path(url).open("rb", buffering=0) as f:
            size = os.fstat(f.fileno()).st_size  # first: it may be less than memory can hold of what is asked
            f.seek(start)
            parts = [f.read(b - a) for a, b in pairwise(edges)] if stop <= size else []
    else:
        data, size = storage.read_range_once_a_node(url, start, stop), storage.recent_size(url)
        parts = [data[a - start : b - start] for a, b in pairwise(edges)]
    if sum(map(len, parts)) < stop - start:
        raise EOFError(f"the file has {size} bytes, not {stop}: it is cut short, or was written anew; import it again")
    return parts
