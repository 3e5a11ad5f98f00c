"""The pages of an Ogg file, walked: its streams one after the other (links of a chain), and what lies between."""

from typing import BinaryIO

from coat.manifests.audio.extents import Extent
from coat.manifests.audio.marks import BLOCK_BYTES, read_at

AUDIO = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
BEGINS, ENDS = 2, 4  # flags of a page
HEADER = 27


def links(f: BinaryIO, at: int, size: int) -> tuple[list[Extent], int]:
    """The links of a chain from `at` on, and where its last whole page ends. ValueError: two sounds at once."""
    found: list[int] = []  # where links begin
    last_pages: list[int] = []  # of the streams of audio of each
    opus: list[bool] = []
    sounds, sound = 0, b""  # streams of audio in the link, and the serial number of one
    in_head, buffer, base = False, b"", at
    while at + HEADER <= size:
        if at + HEADER + 255 + 16 > base + len(buffer):
            base, buffer = at, read_at(f, at, min(BLOCK_BYTES, size - at))
        page = buffer[at - base : at - base + HEADER + 255 + 16]
        if len(page) < HEADER or page[:4] != b"OggS":
            break
        lacing = page[HEADER : HEADER + page[26]]
        begin = HEADER + len(lacing)
        if page[5] & BEGINS:
            if not in_head:
                found.append(at)
                last_pages.append(at)
                opus.append(False)
                sounds = 0
            if page[begin : begin + 8].startswith(AUDIO):
                sounds, sound, opus[-1] = sounds + 1, page[14:18], page[begin : begin + 8] == b"OpusHead"
            if sounds > 1:
                raise ValueError("two streams of audio at once; write the one that is meant to a file of its own")
        in_head = bool(page[5] & BEGINS)
        if len(lacing) < page[26] or at + begin + sum(lacing) > size:
            break
        if found and page[14:18] == sound:
            last_pages[-1] = at
        at += begin + sum(lacing)
    extents = [
        Extent(first, stop, ended(f, last) if is_opus else ())
        for first, stop, last, is_opus in zip(found, [*found[1:], at], last_pages, opus, strict=True)
    ]
    return extents, at


def ended(f: BinaryIO, at: int) -> tuple[tuple[int, bytes], ...]:
    """What makes a page the last of its stream: libsndfile decodes no Opus of which no page is (the writer was
    stopped). Empty where it is."""
    page = bytearray(read_at(f, at, HEADER + 255 * 256))
    page = page[: HEADER + page[26] + sum(page[HEADER : HEADER + page[26]])]
    if page[5] & ENDS:
        return ()
    page[5] |= ENDS
    page[22:26] = bytes(4)
    crc = 0
    for byte in page:
        crc = crc << 8 & 0xFFFFFFFF ^ CRC_TABLE[crc >> 24 ^ byte]
    return (at + 5, bytes([page[5]])), (at + 22, crc.to_bytes(4, "little"))


def crc_table(polynomial: int, bits: int) -> list[int]:
    """Of a CRC whose highest bit comes first."""
    top, mask, table = 1 << bits - 1, (1 << bits) - 1, list[int]()
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & top else 0)) & mask
        table.append(value)
    return table


CRC_TABLE = crc_table(0x04C11DB7, 32)
