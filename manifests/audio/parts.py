"""The parts of an audio file: files that were joined end to end are each decoded, and no byte is passed over unsaid.

libsndfile reads the first of them (WAV, FLAC, Ogg, MP3 with a Xing header) or takes the header of the second for sound
(W64, AU), FFmpeg often too.
"""

import io
from typing import BinaryIO, cast

from coat.manifests.audio import extents, marks, ogg_pages
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.extents import Extent

LEAST_BYTES = 64  # fewer are a few milliseconds of anything
TAGS_ARE_HEARD = (b".snd", b"dns.", b"riff")  # libsndfile reads these to the end of the file, whatever follows


def find_parts(path: str, f: BinaryIO) -> list[Extent]:
    """One for most files. AudioError where bytes belong to none, or where two sounds run at once."""
    size = marks.file_size(f)
    at, found = 0, list[Extent]()
    first = behind_tag(f)
    while at < size:
        begins = extents.after_tags(f, at, size) if found else first
        if size - begins < LEAST_BYTES and found:
            break
        more, stop = parts_at(path, f, begins, size)
        if not more and found:
            last = f"{size - begins} bytes from byte {begins} on belong to no stream of it"
            raise AudioError("unreadable", f"{path}: {last}; cut them off, or give what they are a file of its own")
        found += more or [Extent(0, size)]
        if stop <= at:
            raise AudioError("unreadable", f"{path}: its header states a length of nothing (at byte {at})")
        at = stop
    if len(found) > 1 or found[0].patches or first or marks.read_at(f, 0, 4) in TAGS_ARE_HEARD:
        return found
    return [Extent(0, size)]  # with its tags


def behind_tag(f: BinaryIO) -> int:
    """Where a file begins that has an ID3 tag before it, though its kind has none: libsndfile would lose its way."""
    inside = extents.after_id3(f, 0)
    return inside if inside and extents.reader_of(f, 0) is None and extents.begins_file(f, inside) else 0


def parts_at(path: str, f: BinaryIO, at: int, size: int) -> tuple[list[Extent], int]:
    """The parts that begin at a byte, and where they end; none where no container is known to begin there."""
    if marks.read_at(f, at, 4) == b"OggS":
        try:
            found, stop = ogg_pages.links(f, at, size)
        except ValueError as e:
            raise AudioError("unreadable", f"{path}: {e}") from e
        is_cut = marks.read_at(f, stop, 4) == b"OggS" or size - stop < ogg_pages.HEADER
        return found, size if is_cut else stop  # a cut is told elsewhere
    reader = extents.reader_of(f, at)
    if reader is None:
        return [], size
    extent = reader(f, at, size)
    return [extent], extent.stop


class Part(io.RawIOBase):
    """An extent of a file as a file of its own, its patches applied."""

    def __init__(self, f: BinaryIO, extent: Extent) -> None:
        """`f`: of its own; it is closed along with this."""
        self.f, self.extent, self.at = f, extent, 0
        self.name = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        length = self.extent.stop - self.extent.first
        self.at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: length}[whence])
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer)).cast("B")
        first = self.extent.first + self.at
        data = marks.read_at(self.f, first, max(0, min(len(view), self.extent.stop - first)))
        view[: len(data)] = data
        for at, patch in self.extent.patches:
            for i, byte in enumerate(patch, start=at - first):
                if 0 <= i < len(data):
                    view[i] = byte
        self.at += len(data)
        return len(data)

    def close(self) -> None:
        self.f.close()
        super().close()
