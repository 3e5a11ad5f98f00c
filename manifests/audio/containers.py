"""Was a file cut short? Told from the sizes that its own container states; libsndfile does not say.

libsndfile shrinks a cut WAV, AIFF, AU, W64 or RF64 to what is there, and a cut Ogg to its last whole
page, and reads on as if nothing were amiss: silent loss, which a corpus must not have.
"""

import io
import re
from typing import BinaryIO

# Sizes near 2^31 and 2^32 are placeholders of writers that could not seek back (pipes; SoX has 0x7FFFF000): no promise.
PLACEHOLDERS = (range(0x7FFFF000, 0x80000000), range(0xFFFFFF00, 0x100000000))
LOG_SIZE = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
LOG_RF64 = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
OGG_PAGE_MAX = 27 + 255 + 255 * 255  # header, lacing values, and the most that they can state


def log_states_more(log: str) -> bool:
    """Whether libsndfile's log of an opened file (`extra_info`) has a data size larger than the file."""
    sizes = [(int(stated), int(found)) for stated, found in LOG_SIZE.findall(log)]
    sizes += [(int(stated), int(found)) for found, stated in LOG_RF64.findall(log)]
    return any(found < stated and not is_placeholder(stated) for stated, found in sizes)


def is_placeholder(size: int) -> bool:
    return size == 0 or any(size in r for r in PLACEHOLDERS)


def ends_with_whole_ogg_page(f: BinaryIO) -> bool:
    """Whether an Ogg file ends with a whole page; bytes of zero after it are padding."""
    f.seek(max(0, f.seek(0, io.SEEK_END) - OGG_PAGE_MAX))
    tail = f.read()
    page = tail[tail.rfind(b"OggS") :]
    lacing = page[27 : 27 + page[26]] if len(page) > 26 else b""
    return len(page) > 26 and len(lacing) == page[26] and len(page) >= 27 + len(lacing) + sum(lacing)


def states_duration(data: bytes) -> bool:
    """Whether the container states its duration (Matroska, WebM, MP4); of bare AAC or AMR it is a guess."""
    return data[:4] == b"\x1aE\xdf\xa3" or data[4:8] == b"ftyp"


def is_cut_short(data: bytes) -> bool:
    """Whether a file that cannot be opened is the first part of a FLAC, WAV, RF64, AIFF or Ogg file."""
    magic = data[:4]
    if magic == b"fLaC":
        return flac_lacks_audio(data)
    if magic in (b"RIFF", b"FORM"):
        stated = int.from_bytes(data[4:8], "little" if magic == b"RIFF" else "big")
        return len(data) < 8 or (len(data) < stated + 8 and not is_placeholder(stated))
    if magic == b"RF64":
        return len(data) < 80  # the header alone is longer
    return magic == b"OggS" and not ends_with_whole_ogg_page(io.BytesIO(data))


def flac_lacks_audio(data: bytes) -> bool:
    """Whether the chain of metadata blocks runs to the end of the data or over it."""
    at, last = 4, False
    while not last:
        if at + 4 > len(data):
            return True
        last, size = bool(data[at] & 0x80), int.from_bytes(data[at + 1 : at + 4], "big")
        at += 4 + size
    return len(data) < at + 6  # no room for the header of a frame
