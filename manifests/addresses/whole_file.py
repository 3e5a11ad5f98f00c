"""A file or object as a whole."""

import io
from dataclasses import dataclass

from coat.manifests import storage


@dataclass(frozen=True)
class WholeFile:
    url: str

    def open(self, keep: bool = False) -> str | io.BytesIO:
        if storage.is_local(self.url):
            return str(storage.local_path(self.url))
        return io.BytesIO(storage.read_once_a_node(self.url) if keep else storage.read_bytes(self.url))

    def size(self) -> int:
        return storage.size(self.url)

    def digest(self) -> str:
        return f"{self.url} {storage.info(self.url).stamp}"

    def __str__(self) -> str:
        return self.url
