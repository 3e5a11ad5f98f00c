"""Where a container ends by its own account, so that what follows it in the file is not lost. B: bytes of the file.

An extent is (first, stop, patches): bytes of the file, and bytes to read in the place of others where a writer that
could not seek back left sizes out.
"""

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from coat.manifests.audio import ebml
from coat.manifests.audio.containers import is_placeholder
from coat.manifests.audio.marks import ASF, BLOCK_BYTES, MP3_FILES, next_file, read_at, search
from coat.manifests.audio.mp3_frames import XING, frame_bytes, is_same_kind

# Chunks that follow the sound of a WAV, and that a cut may have shortened: no sound is lost with them.
NO_SOUND = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"fact", b"JUNK", b"PAD ", b"_PMX", b"afsp")
FILES = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"OggS", b"fLaC", b"caff", b"riff", b".snd", b"APET")  # not chunks
W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
ASF_HEAD = 24  # bytes of the head of an object of WMA
ADTS_HEAD, ADTS_MOST = 7, 2**13  # bytes of a frame of AAC: its head, and all of it at most


class Extent(NamedTuple):
    first: int
    stop: int
    patches: tuple[tuple[int, bytes], ...] = ()


def riff(f: BinaryIO, at: int, size: int) -> Extent:
    """WAV, also RIFX and RF64: the chunks of a file, walked. A data size that is left out runs to the next header."""
    head = read_at(f, at, 36)
    order = "big" if head[:4] == b"RIFX" else "little"
    chunk, heard = at + 12, False
    while chunk + 8 <= size:
        name, length = read_at(f, chunk, 4), int.from_bytes(read_at(f, chunk + 4, 4), order)
        if name in FILES or not is_chunk_name(name):
            break
        if name == b"data":
            if head[:4] == b"RF64" and length == 0xFFFFFFFF:
                length = int.from_bytes(head[28:36], "little")
            elif is_placeholder(length) and not (length == 0 and are_chunks(f, chunk + 8, size, order)):
                stop = next_file(f, chunk + 8, size)
                real = stop - chunk - 8
                if (stop == size and length) or real > 0xFFFFFFFE:  # libsndfile reads to the end by itself
                    return Extent(at, size)
                patches = (
                    (at + 4, min(stop - at - 8, 0xFFFFFFFF).to_bytes(4, order)),
                    (chunk + 4, real.to_bytes(4, order)),
                )
                return Extent(at, stop, patches)
        heard = heard or name == b"data"
        if chunk + 8 + length > size:
            if heard and name != b"data" and name not in NO_SOUND:
                break
            return Extent(at, size)  # cut short: libsndfile's log says so
        padded = chunk + 8 + length + length % 2
        odd = length % 2 and is_chunk_name(read_at(f, padded - 1, 4))
        chunk = padded - 1 if odd else padded  # a writer that forgot the padding
    return Extent(at, min(size, chunk))


def are_chunks(f: BinaryIO, at: int, size: int, order: str) -> bool:
    """Whether nothing, or whole chunks follow up to the end: then a data size of 0 is meant."""
    while at + 8 <= size:
        if not is_chunk_name(read_at(f, at, 4)):
            return False
        length = int.from_bytes(read_at(f, at + 4, 4), "big" if order == "big" else "little")
        at += 8 + length + length % 2
    return at >= size


def is_chunk_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= c < 127 for c in name)


def aiff(f: BinaryIO, at: int, size: int) -> Extent:
    stated = int.from_bytes(read_at(f, at + 4, 4), "big")
    return Extent(at, size if is_placeholder(stated) else min(size, at + 8 + stated + stated % 2))


def au(f: BinaryIO, at: int, size: int) -> Extent:
    head = read_at(f, at, 12)
    order = "big" if head[:4] == b".snd" else "little"
    begin, length = int.from_bytes(head[4:8], order), int.from_bytes(head[8:12], order)
    return Extent(at, size if length == 0xFFFFFFFF else min(size, at + begin + length))


def w64(f: BinaryIO, at: int, size: int) -> Extent:
    stated = int.from_bytes(read_at(f, at + 16, 8), "little")
    return Extent(at, size if stated < 40 else min(size, at + -(-stated // 8) * 8))


def caf(f: BinaryIO, at: int, size: int) -> Extent:
    chunk, heard = at + 8, False
    while chunk + 12 <= size:
        name, length = read_at(f, chunk, 4), int.from_bytes(read_at(f, chunk + 4, 8), "big", signed=True)
        if name in FILES or not is_chunk_name(name) or (heard and chunk + 12 + length > size):
            break
        if length < 0:
            return Extent(at, size)
        heard = heard or name == b"data"
        chunk += 12 + length
    return Extent(at, min(chunk, size))


def flac(f: BinaryIO, at: int, size: int) -> Extent:
    begin = after_id3(f, at)  # which libsndfile does not pass over in a file object
    return Extent(begin, next_file(f, begin + 4, size))


def mp4(f: BinaryIO, at: int, size: int) -> Extent:
    """Boxes, up to the next file's."""
    box, seen = at, set[bytes]()
    while box + 8 <= size:
        head = read_at(f, box, 16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if name == b"ftyp" and seen & {b"moov", b"mdat"}:
            break
        if length == 0 or not all(32 <= c < 127 or c == 0xA9 for c in name):
            to_end = box == at or (length == 0 and name == b"mdat")
            return Extent(at, size if to_end else box)
        seen.add(name)
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        if length < 8:
            break
        box += length
    return Extent(at, min(box, size))


def matroska(f: BinaryIO, at: int, size: int) -> Extent:
    return Extent(at, ebml.end_of(f, at, size))


def asf(f: BinaryIO, at: int, size: int) -> Extent:
    """WMA: objects, each of a kind (16 bytes) and a length, up to the next file. A live writer says 0 for the data."""
    place = at
    while place + ASF_HEAD <= size and (place == at or not begins_file(f, place)):
        length = int.from_bytes(read_at(f, place + 16, 8), "little")
        if length == 0 and place > at:
            return Extent(at, next_file(f, place + ASF_HEAD, size))
        if length < ASF_HEAD or place + length > size:
            break
        place += length
    return Extent(at, place if place > at else size)


def amr(f: BinaryIO, at: int, size: int) -> Extent:
    return Extent(at, next_file(f, at + 6, size))


def adts(f: BinaryIO, at: int, size: int) -> Extent:
    """AAC without a container: frames that each say how long they are."""
    at_frame = begin = after_id3(f, at)
    for place, block in whole_blocks(f, begin, size):
        while (length := adts_bytes(block[at_frame - place : at_frame - place + 6])) and at_frame + length <= size:
            at_frame += length
        if at_frame < place + len(block) - ADTS_MOST:
            break
    return Extent(at, size if size - at_frame < ADTS_HEAD or adts_bytes(read_at(f, at_frame, 6)) else at_frame)


def whole_blocks(f: BinaryIO, at: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Blocks that overlap by more than a frame of ADTS."""
    while at < stop:
        yield at, read_at(f, at, BLOCK_BYTES + ADTS_MOST)
        at += BLOCK_BYTES


def adts_bytes(head: bytes) -> int:
    """Of the frame that begins there; 0 where none does."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= ADTS_HEAD else 0


def mp3(f: BinaryIO, at: int, size: int) -> Extent:
    """Up to where its Xing header says that it ends, or to the next file's: mpg123 would stop there in silence."""
    begin = after_id3(f, at)
    first = read_at(f, begin, 4096)
    found = XING.match(first)
    again = next_file(f, begin + 4, size, MP3_FILES)
    if found is None:
        return Extent(at, again)
    flags = int.from_bytes(first[found.end() : found.end() + 4], "big")
    at_bytes = found.end() + 4 + (4 if flags & 1 else 0)
    stated = int.from_bytes(first[at_bytes : at_bytes + 4], "big") if flags & 2 else 0
    slack = frame_bytes(first[:4]) + stated // 100  # some do not count the header's own frame; mpg123 allows 1 %
    if not stated or begin + stated + slack >= again:
        return Extent(at, again)
    # The next frame begins within the slack, or what lies there is none.
    rest = read_at(f, begin + stated, slack + 4096)
    frames = (i for i in range(slack) if is_same_kind(first, rest[i:]))
    frame = next((i for i in frames if is_same_kind(first, rest[i + frame_bytes(rest[i : i + 4]) :])), 0)
    return Extent(at, begin + stated + frame)


def syncsafe(number: bytes) -> int:
    return sum((b & 0x7F) << 7 * i for i, b in enumerate(reversed(number)))


def after_id3(f: BinaryIO, at: int) -> int:
    """Past an ID3 tag that begins there."""
    head = read_at(f, at, 10)
    return at + 10 + syncsafe(head[6:10]) if head[:3] == b"ID3" and len(head) == 10 else at


def after_tags(f: BinaryIO, at: int, size: int) -> int:
    """Past what is no audio by common consent: ID3, APE and Lyrics3 tags, and bytes of zero."""
    while at < size:
        head = read_at(f, at, 32)
        if begins_file(f, at):
            return at
        if head[:4] == b"TAG+":
            at += 227
        elif head[:3] == b"TAG":
            at += 128
        elif head[:8] == b"APETAGEX":
            at += 32 + int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 32
        elif head[:11] == b"LYRICSBEGIN":
            at = search(f, re.compile(rb"TAG|APETAGEX"), at, size)
        elif head[:3] == b"ID3" and len(head) > 10 and not max(head[6:10]) & 0x80:
            at = after_id3(f, at)
        elif head[:1] in (b"\0", b"\n", b"\r"):
            at = search(f, re.compile(rb"[^\0\r\n]"), at, size)
        else:
            return at
    return min(at, size)


def begins_file(f: BinaryIO, at: int) -> bool:
    return read_at(f, at, 4) == b"OggS" or reader_of(f, at) is not None


READERS: dict[bytes, Callable[[BinaryIO, int, int], Extent]] = {
    **dict.fromkeys((b"RIFF", b"RIFX", b"RF64"), riff),
    **dict.fromkeys((b".snd", b"dns."), au),
    b"FORM": aiff,
    b"riff": w64,
    b"caff": caf,
    b"fLaC": flac,
    b"\x1aE\xdf\xa3": matroska,
    ASF[:4]: asf,
    b"#!AM": amr,
}


def reader_of(f: BinaryIO, at: int) -> Callable[[BinaryIO, int, int], Extent] | None:
    """What walks the container that begins there; None where it is none that is known."""
    head = read_at(f, at, 16)
    if head[:4] == b"RIFF" and head[8:12] not in (b"WAVE", b""):
        return None
    if head[:4] == b"riff" and head != W64_RIFF:
        return None
    if head[4:8] == b"ftyp":
        return mp4
    if head[:3] == b"ID3":
        inside = after_id3(f, at)
        behind = read_at(f, inside, 4)
        if adts_bytes(read_at(f, inside, 6)):
            return adts
        return flac if behind == b"fLaC" else mp3 if frame_bytes(behind) else None
    if frame_bytes(head[:4]):
        return mp3
    if adts_bytes(head):
        return adts
    return READERS.get(head[:4])
