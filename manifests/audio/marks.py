"""Where another file begins within a file, which nobody's header says: all of it is searched.

A word is looked for by pairs of its bytes in the numpy way, which is several times as fast as `bytes.find` of each
word, and leaves the interpreter to other threads.
"""

import io
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from coat.manifests.audio.mp3_frames import XING

BLOCK_BYTES = 2**20
OVERLAP = 256  # of blocks that are searched: longer than any mark
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # how WMA begins


class Mark(NamedTuple):
    """How a file may begin: a word of three bytes or more, how far behind the beginning it may stand, and all of it."""

    word: bytes
    before: tuple[int, ...]
    pattern: re.Pattern[bytes]


FILES = (
    Mark(b"WAVE", (8,), re.compile(rb"(?:RIFF|RIFX|RF64).{4}WAVE(?:fmt |JUNK|bext|ds64|LIST|fact)", re.DOTALL)),
    Mark(b"fLaC", (0,), re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")),
    Mark(b"OggS\0\2", (0,), re.compile(rb"OggS\x00\x02\x00{8}")),
    Mark(b"AIF", (8,), re.compile(rb"FORM.{4}AIF[FC](?:COMM|FVER)", re.DOTALL)),
    Mark(b"\x1aE\xdf\xa3", (0,), re.compile(rb"\x1aE\xdf\xa3.{1,64}?(?:webm|matroska)", re.DOTALL)),
    Mark(b"ftyp", (4,), re.compile(rb"\0\0\0.ftyp(?:M4A |M4B |isom|iso\d|mp4\d|dash|qt  )", re.DOTALL)),
    Mark(b"#!AMR", (0,), re.compile(rb"#!AMR(?:-WB)?\n")),
    Mark(ASF, (0,), re.compile(re.escape(ASF))),
    Mark(b"riff\x2e\x91\xcf\x11", (0,), re.compile(rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00")),
)
XING_AT = (13, 15, 21, 23, 36, 38)  # behind the header of a frame, by version, channels and checksum
MP3_FILES = (*FILES, Mark(b"Xing", XING_AT, XING), Mark(b"Info", XING_AT, XING))


def read_at(f: BinaryIO, at: int, size: int) -> bytes:
    f.seek(at)
    return f.read(size)


def file_size(f: BinaryIO) -> int:
    return f.seek(0, io.SEEK_END)


def blocks(f: BinaryIO, at: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Blocks that overlap, each with its place."""
    while at < stop:
        block = read_at(f, at, min(BLOCK_BYTES, stop - at))
        yield at, block
        if len(block) < BLOCK_BYTES:
            return
        at += BLOCK_BYTES - OVERLAP


def search(f: BinaryIO, pattern: re.Pattern[bytes], at: int, stop: int) -> int:
    """Where a pattern of at most OVERLAP bytes begins, from `at` on; `stop` where it does not."""
    return next((place + m.start() for place, block in blocks(f, at, stop) if (m := pattern.search(block))), stop)


def next_file(f: BinaryIO, at: int, stop: int, marks: Sequence[Mark] = FILES) -> int:
    """Where another file begins, from `at` on; `stop` where none does."""
    for place, block in blocks(f, at, stop):
        if found := [place + start for mark in marks for start in starts(block, mark)]:
            return min(found)
    return stop


def starts(block: bytes, mark: Mark) -> Iterator[int]:
    pairs = np.frombuffer(block, "<u2", len(block) // 2)  # of a word at an odd place, the second byte and the third
    for odd in (0, 1):
        hits = (pairs == int.from_bytes(mark.word[odd : odd + 2], "little")).nonzero()[0]
        for hit in hits.tolist():
            at = 2 * hit - odd
            if at >= 0 and block.startswith(mark.word, at):
                yield from (at - n for n in mark.before if at >= n and mark.pattern.match(block, at - n))
