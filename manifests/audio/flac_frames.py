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
RATES = (0, 88200, 176400, 192000, 8000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)  # Hz, by their codes
HEADER_MOST = 24  # bytes that hold the header of a frame
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
    rate = int.from_bytes(info[10:13], "big") >> 4
    first = first_frame(f, at, stop)
    if first[:1] == b"\xff" and (of_frame := frame_rate(first)) not in (0, rate):
        raise AudioError("unreadable", f"{path}: its header states {rate} Hz, its frames {of_frame} Hz; write it again")
    size, total = int.from_bytes(info[2:4], "big"), int.from_bytes(info[13:18], "big") & (1 << 36) - 1
    if not total or size < 16 or info[:2] != info[2:4]:
        return
    last = (total - 1) // size
    largest = int.from_bytes(info[7:10], "big") or 16 + size * 8 * 4
    begin = find_frame(f, last, max(at, stop - 2 * largest - 4096), stop)
    begin = find_frame(f, last, at, stop) if begin < 0 else begin
    if begin < 0:
        return
    left = frame_samples(marks.read_at(f, begin, HEADER_MOST)) - (total - last * size)
    if left > 0 or find_frame(f, last + 1, begin, stop) >= 0:
        said = f"{path}: its header promises {total / rate:.3f} s, and its frames hold more; write it again"
        raise AudioError("unreadable", said)
    rest = marks.read_at(f, begin, stop - begin)[: largest + MOST_TAGS]
    tags = (rest.find(tag) for tag in (b"TAG", b"APETAGEX", b"ID3"))
    ends = [len(rest), *(end for end in tags if end > 0 and extents.after_tags(f, begin + end, stop) >= stop - SLACK)]
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


def first_frame(f: BinaryIO, at: int, stop: int) -> bytes:
    """The first bytes of what follows the blocks of metadata."""
    block, is_last = at + 4, False
    while not is_last and block + 4 <= stop:
        head = marks.read_at(f, block, 4)
        is_last = bool(head[0] & 0x80)
        block += 4 + int.from_bytes(head[1:], "big")
    return marks.read_at(f, block, HEADER_MOST)


def frame_rate(header: bytes) -> int:
    """Hz; 0 where a frame leaves it to the header of the stream."""
    code = header[2] & 15 if len(header) == HEADER_MOST else 0
    if code < len(RATES):
        return RATES[code]
    at = behind_number(header) + {6: 1, 7: 2}.get(header[2] >> 4, 0)
    return int.from_bytes(header[at : at + (1 if code == 12 else 2)], "big") * {12: 1000, 13: 1, 14: 10}.get(code, 0)


def frame_samples(header: bytes) -> int:
    """How many a frame holds; 0 where it does not say."""
    code = header[2] >> 4 if len(header) == HEADER_MOST else 0
    if code in (6, 7):
        at = behind_number(header)
        return int.from_bytes(header[at : at + code - 5], "big") + 1
    return 0 if code == 0 else 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8


def behind_number(header: bytes) -> int:
    """Where the number of a frame, coded like UTF-8, ends."""
    return 4 + (8 - (header[4] ^ 0xFF).bit_length() or 1)


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


def added_by_bytes(size: int) -> NDArray[np.integer]:
    """`[size * 256]`: what a byte of each value, at each place of a block, adds to the block's CRC."""
    table = np.array(CRC16, np.uint16)
    added: list[NDArray[np.integer]] = [table]
    for _ in range(size - 1):
        added.append(added[-1] << 8 ^ table[added[-1] >> 8])
    return np.concatenate(added[::-1])


CRC_BLOCK = 64
ADDED, PLACES_B = added_by_bytes(CRC_BLOCK), np.arange(CRC_BLOCK) * 256
FIRST, SECOND = ADDED[:256].tolist(), ADDED[256:512].tolist()  # the CRC so far is added to the next two bytes
