"""The bytes of an audio file: a path or what was read of it, whole or a part, to be looked at and decoded."""

import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO, TypeVar, cast

import soundfile

from coat.manifests import addresses
from coat.manifests.audio import faults
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.extents import Extent
from coat.manifests.audio.parts import Part, find_parts
from coat.manifests.errors import ReadFault

SYSTEM_ERROR = 2  # of libsndfile: what the operating system said, which it does not pass on
HELD_BYTES = 2**20  # a smaller file is read once and held while it is looked at: to open and seek costs more than that

Opened = TypeVar("Opened")


class Source:
    """A file. AudioError where it is none or empty, EnvironmentFault as `faults` tells it.

    `data`: its bytes, where they were read already. Those of a remote file, or of a part of a file, are read here.
    """

    def __init__(self, path: str, data: bytes | None = None) -> None:
        address, self.channel = faults.parse_address(path), addresses.split_channel(path)[1]
        self.path, self.name, self.data = path, "", data
        self.held: bytes | None = None
        self.stamp = (0, 0, 0)
        if data is None:
            with faults.reading(path):
                opened = address.open()
            self.name, self.data = (opened, None) if isinstance(opened, str) else ("", opened.getvalue())
        self.size = self.size_on_disk() if self.data is None else len(self.data)
        self.check_size()

    def size_on_disk(self) -> int:
        with faults.reading(self.path):
            status = os.stat(self.name)
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never end
            raise AudioError("unreadable", f"{self.path}: not a regular file; expected an audio file")
        self.stamp = status.st_mtime_ns, status.st_size, status.st_ino
        return status.st_size

    def check_size(self) -> None:
        if self.size == 0:
            raise AudioError("empty", f"{self.path}: the file has no bytes")

    @contextmanager
    def held_in_memory(self) -> Iterator[None]:
        """A small file, while it is looked at."""
        if self.data is None and self.size <= HELD_BYTES:
            with faults.reading(self.path), open(self.name, "rb") as f:
                held = f.read()
            self.held, self.size = held, len(held)
            self.check_size()
        try:
            yield
        finally:
            self.held = None

    def look(self) -> BinaryIO:
        """Its bytes, for Python to read."""
        known = self.data if self.held is None else self.held
        return open(self.name, "rb") if known is None else io.BytesIO(known)

    def opens(self) -> Any:
        """What soundfile opens. A local file is given by its name: libsndfile then reads it without Python."""
        return self.name if self.data is None else io.BytesIO(self.data)

    def parts(self) -> "list[SourcePart]":
        """As `find_parts`."""
        with faults.reading(self.path):
            if self.data is None and self.held is None:
                found = parts_of_large(self.path, self.name, self.stamp)
            else:
                with self.look() as f:
                    found = find_parts(self.path, f)
        return [SourcePart(self, extent) for extent in found]


@lru_cache(64)
def parts_of_large(path: str, name: str, stamp: tuple[int, int, int]) -> list[Extent]:
    """As `find_parts`, which reads all of it: units that have spans of one long recording open it one after another."""
    with open(name, "rb") as f:
        return find_parts(path, f)


class SourcePart:
    """Part of a file, or all of it, where it is one container."""

    def __init__(self, source: Source, extent: Extent) -> None:
        self.source, self.extent = source, extent
        self.path = source.path
        self.is_whole = extent == Extent(0, source.size)

    def look(self) -> BinaryIO:
        f = self.source.look()
        return f if self.is_whole else cast(BinaryIO, Part(f, self.extent))

    def opens(self) -> Any:
        return self.source.opens() if self.is_whole else self.look()

    def opened(self, by_libsndfile: Callable[[Any], Opened]) -> Opened:
        """What libsndfile makes of it. ReadFault or AudioError where the system does not let it read a file: FFmpeg
        could, of bytes that are held, and then it would depend on the moment which of the two gives the samples.
        """
        for _ in range(2):
            try:
                return by_libsndfile(self.opens())
            except soundfile.LibsndfileError as e:
                if e.code != SYSTEM_ERROR or not self.source.name:
                    raise
            with faults.reading(self.path), open(self.source.name, "rb") as f:
                f.read()
        raise ReadFault(f"{self.path}: cannot be read here (libsndfile says that the system does not let it)")

    def read(self) -> bytes:
        with faults.reading(self.path), self.look() as f:
            return f.read()
