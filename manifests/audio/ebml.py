"""Where a Matroska or WebM file ends: its elements, walked. A size that was left open is that of what is inside.

Source: RFC 8794 (EBML), RFC 9559 (Matroska).
"""

from typing import BinaryIO

HEADER, SEGMENT, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
BESIDE = {0xEC, 0xBF}  # Void, CRC-32: at any level
IN_SEGMENT = {
    *(0x114D9B74, 0x1549A966, 0x1654AE6B, CLUSTER, 0x1C53BB6B),  # SeekHead, Info, Tracks, Cluster, Cues
    *(0x1941A469, 0x1043A770, 0x1254C367),  # Attachments, Chapters, Tags
}
# Timestamp, SimpleBlock, BlockGroup, Position, PrevSize, SilentTracks
IN_CLUSTER = {0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0x5854}


def end_of(f: BinaryIO, at: int, size: int) -> int:
    """Of the file that begins there; `size`, the end of all, where it is cut short."""
    head, length = element(f, at)
    if head != HEADER or length is None:
        return size
    return end_of_elements(f, at, size, {HEADER, SEGMENT}, once=True)


def end_of_elements(f: BinaryIO, at: int, size: int, known: set[int], once: bool = False) -> int:
    """Behind the elements of these kinds that follow each other there. `once`: each kind comes once."""
    seen: set[int] = set()
    while at < size:
        name, length = element(f, at)
        if name not in known | BESIDE or (once and name in seen):
            return at
        seen.add(name)
        begin = f.tell()
        if length is not None:
            at = begin + length
        elif name == SEGMENT:
            at = end_of_elements(f, begin, size, IN_SEGMENT)
        elif name == CLUSTER:
            at = end_of_elements(f, begin, size, IN_CLUSTER)
        else:
            return size
    return min(at, size)


def element(f: BinaryIO, at: int) -> tuple[int, int | None]:
    """Its kind, and its length (None: left open); (0, 0) where none is there. Leaves the file behind its head."""
    f.seek(at)
    first = f.read(1)
    if not first or first[0] < 0x10:  # kinds have at most 4 bytes
        return 0, 0
    name = first + f.read(8 - first[0].bit_length())
    lead = f.read(1)
    if not lead or not lead[0]:
        return 0, 0
    more = 8 - lead[0].bit_length()
    rest = f.read(more)
    if len(rest) < more:
        return 0, 0
    value = int.from_bytes(bytes([lead[0] & (1 << 7 - more) - 1]) + rest, "big")
    return int.from_bytes(name, "big"), None if value == (1 << 7 * (more + 1)) - 1 else value
