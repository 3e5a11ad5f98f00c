"""The frames of MPEG audio, counted: without a Xing header libsndfile guesses the length by the first bit rate, and
stops there."""

import re
from functools import cache

XING = re.compile(rb"\xff[\xe2-\xff].{2}(?:\0{9}|\0{17}|\0{32}|\0{11}|\0{19}|\0{34})(?:Xing|Info)", re.DOTALL)
MPEG1_KBPS = (
    (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),  # layer I
    (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
MPEG2_KBPS = (
    (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)


def is_same_kind(a: bytes, b: bytes) -> bool:
    """Whether two MPEG headers are of one version and layer, and the second is a header that can be."""
    return len(b) > 3 and b[0] == 0xFF and (a[1] & 0xFE) == (b[1] & 0xFE) and frame_bytes(b[:4]) > 0


def frame_bytes(header: bytes) -> int:
    """The length of an MPEG audio frame; 0 where it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return 0
    kbps = (MPEG1_KBPS if version == 3 else MPEG2_KBPS)[layer - 1][bits]
    hz = (44100, 48000, 32000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    slot = 4 if layer == 1 else 1
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    return (samples * kbps * 125 // hz // slot + (header[2] >> 1 & 1)) * slot


def frame_samples(header: bytes) -> int:
    layer = 4 - (header[1] >> 1 & 3)
    return 384 if layer == 1 else 576 if layer == 3 and header[1] >> 3 & 3 != 3 else 1152


@cache
def lengths_of_kind(second: int) -> dict[bytes, int]:
    """By their first three bytes, the lengths of all frames of one version and layer, which the second byte tells."""
    heads = (bytes([0xFF, second & 0xFE | protection, third]) for protection in (0, 1) for third in range(256))
    return {head: length for head in heads if (length := frame_bytes(head + b"\0"))}


def count_samples(data: bytes) -> int:
    """Of all frames from the first one on; what is no frame between them is passed over. 0 where there is none."""
    at, last = first_frame(data), len(data) - 4
    if at < 0:
        return 0
    lengths, frames = lengths_of_kind(data[at + 1]), 0
    each = frame_samples(data[at : at + 4])
    while 0 <= at <= last:
        try:
            while at <= last:
                at += lengths[data[at : at + 3]]
                frames += 1
        except KeyError:
            at = data.find(b"\xff", at + 1)
    return frames * each


def first_frame(data: bytes) -> int:
    """Where it begins; -1 where there is none. A header by chance is followed by no other."""
    at = 0
    while 0 <= at <= len(data) - 4:
        header = data[at : at + 4]
        if length := frame_bytes(header):
            following = data[at + length : at + length + 4]
            if not following or is_same_kind(header, following):
                return at
        at = data.find(b"\xff", at + 1)
    return -1
