"""Whether the frames of a FLAC file are those that its header promises: libsndfile stops where the header says."""

import re
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from coat.manifests.audio import extents, marks
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.ogg_pages import crc_table

CRC8, CRC16 = crc_table(0x07, 8), crc_table(0x8005, 16)
STREAMINFO_AT = 8
SLACK = 64  # bytes after the last frame that nobody minds: a line end
MOST_TAGS = 2**20  # bytes of tags, pictures and padding after the last frame


def check_frames(path: str, f: BinaryIO) -> None:
    """AudioError where its last frames are not what it promises, or bytes follow that are none.

    Of streams of one block size, which all encoders write, frames have numbers. The last that is promised is looked
    for, and the one after it. Where it is not found, the stream is cut short, which decoding tells.
    """
    at, stop = extents.after_id3(f, 0), marks.file_size(f)
    head = marks.read_at(f, at, STREAMINFO_AT + 34)
    if head[:4] != b"fLaC" or len(head) < STREAMINFO_AT + 34:
        return
    info = head[STREAMINFO_AT:]
    size, total = int.from_bytes(info[2:4], "big"), int.from_bytes(info[13:18], "big") & (1 << 36) - 1
    if not total or size < 16 or info[:2] != info[2:4]:
        return
    rate, last = int.from_bytes(info[10:13], "big") >> 4, (total - 1) // size
    largest = int.from_bytes(info[7:10], "big") or 16 + size * 8 * 4
    begin = find_frame(f, last, max(at, stop - 2 * largest - 4096), stop)
    begin = find_frame(f, last, at, stop) if begin < 0 else begin
    if begin < 0:
        return
    if find_frame(f, last + 1, begin, stop) >= 0:
        said = f"{path}: its header promises {total / rate:.3f} s, and more frames follow them; write it again"
        raise AudioError("unreadable", said)
    rest = marks.read_at(f, begin, stop - begin)[: largest + MOST_TAGS]
    ends = [len(rest), *(at for at in (rest.find(tag) for tag in (b"TAG", b"APETAGEX", b"ID3")) if at > 0)]
    if stop - begin > len(rest) or not any(ends_frame(rest[:end]) for end in ends):
        said = f"its last frame (at byte {begin}) is damaged or cut short, or what follows it is no sound"
        raise AudioError("truncated", f"{path}: {said}")


def ends_frame(data: bytes) -> bool:
    """Whether a frame ends with the data, or up to a few bytes before: its CRC over itself and what follows is 0."""
    crc = crc16(data[:-SLACK])
    for byte in data[-SLACK:]:
        if not crc:
            return True
        crc = crc << 8 & 0xFF00 ^ CRC16[crc >> 8 ^ byte]
    return not crc


def find_frame(f: BinaryIO, number: int, at: int, stop: int) -> int:
    """Where the frame of a number begins; -1 where it does not."""
    coded = coded_number(number)
    pattern = re.compile(rb"\xff\xf8[\x10-\xfe]." + re.escape(coded), re.DOTALL)
    for place, block in marks.blocks(f, at, stop):
        for match in pattern.finditer(block):
            header = block[match.start() : match.start() + 24]
            code = header[2] >> 4, header[2] & 15
            length = 4 + len(coded) + {6: 1, 7: 2}.get(code[0], 0) + {12: 1, 13: 2, 14: 2}.get(code[1], 0)
            if len(header) > length and crc8(header[: length + 1]) == 0 and not header[3] & 1:
                return place + match.start()
    return -1


def coded_number(number: int) -> bytes:
    """As UTF-8 would have it, up to 36 bits."""
    if number < 0x80:
        return bytes([number])
    parts: list[int] = []
    first = 0x3F
    while number > first:
        parts.append(0x80 | number & 0x3F)
        number >>= 6
        first >>= 1
    return bytes([(0xFF ^ (first << 1 | 1)) & 0xFF | number, *reversed(parts)])


def crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = CRC8[crc ^ byte]
    return crc


def crc16(data: bytes, crc: int = 0) -> int:
    """Block by block: what each byte adds to the CRC of its block follows from its place, so numpy adds them up."""
    blocks_NB = np.frombuffer(data, np.uint8, len(data) // CRC_BLOCK * CRC_BLOCK).reshape(-1, CRC_BLOCK)
    for block in np.bitwise_xor.reduce(ADDED.take(blocks_NB + PLACES_B), axis=1).tolist():
        crc = FIRST[crc >> 8] ^ SECOND[crc & 0xFF] ^ block
    for byte in data[blocks_NB.size :]:
        crc = crc << 8 & 0xFF00 ^ CRC16[crc >> 8 ^ byte]
    return crc


def added_by_bytes(size: int) -> NDArray[np.uint16]:
    """`[size * 256]`: what a byte of each value, at each place of a block, adds to the block's CRC."""
    table = np.array(CRC16, np.uint16)
    added = [table]
    for _ in range(size - 1):
        added.append((added[-1] << 8 ^ table[added[-1] >> 8]).astype(np.uint16))
    return np.concatenate(added[::-1])


CRC_BLOCK = 64
ADDED, PLACES_B = added_by_bytes(CRC_BLOCK), np.arange(CRC_BLOCK) * 256
FIRST, SECOND = ADDED[:256].tolist(), ADDED[256:512].tolist()  # the CRC so far is added to the next two bytes
