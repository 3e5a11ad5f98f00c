"""Tars of shards: written with fixed headers, and read without trust.

A member is `<key>.<suffix>`; members of one key lie side by side and make a sample. The reader takes plain
files with plain names and nothing else: no folders, links, long names or compression, no size beyond the file,
nothing behind the end. It never writes anywhere.
"""

import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from coat.manifests.errors import BrokenShard, InputError

BLOCK = tarfile.BLOCKSIZE  # 512 bytes
TAR_END = b"\0" * (2 * BLOCK)
# Key without dots, then a suffix; neither can name another folder.
MEMBER_NAME = re.compile(r"([A-Za-z0-9_\-]{1,90})\.([A-Za-z0-9_@+:=,\-]+(?:\.[A-Za-z0-9_@+:=,\-]+)*)")
REGULAR = (b"0", b"\0")  # type flags
NAME, SIZE, CHECKSUM, TYPE, NAME_PREFIX = (
    slice(0, 100),
    slice(124, 136),
    slice(148, 156),
    slice(156, 157),
    slice(345, 500),
)


@dataclass(frozen=True)
class TarSample:
    """All members of one key, and the span of the file that they take; the span is a tar without its end."""

    key: str
    members: dict[str, bytes]  # by suffix
    offset: int
    length: int


def sample_bytes(key: str, members: Mapping[str, bytes]) -> bytes:
    """The members as a tar holds them, sorted by suffix; equal members give equal bytes."""
    parts = []
    for suffix, data in sorted(members.items()):
        name = f"{key}.{suffix}"
        if len(name) > 100 or not MEMBER_NAME.fullmatch(name):
            raise InputError(f"{name}: not a name for a member of a shard; experts' names are short, without / and ..")
        parts += [tar_header(name, len(data)), data, b"\0" * (-len(data) % BLOCK)]
    return b"".join(parts)


def tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uname, info.gname = size, 0o644, 0, "coat", "coat"
    return info.tobuf(tarfile.USTAR_FORMAT)


def read_tar(stream: BinaryIO, size: int, source: str, ended: bool = True) -> Iterator[TarSample]:
    """The samples of a tar of `size` bytes. InputError, with `source` in front, where it is not one of coat's;
    BrokenShard where it may have been one.

    `ended` False: of a span of a tar, which has no end blocks.
    """
    key, members, start, end = "", dict[str, bytes](), 0, 0
    for name, data, offset in read_members(stream, size, source, ended):
        match = MEMBER_NAME.fullmatch(name)
        if not match:
            raise InputError(f"{source}: member {name[:100]!r} is not <key>.<suffix>; it is not a file of a shard")
        if match[1] != key:
            if members:
                yield TarSample(key, members, start, end - start)
            key, members, start = match[1], {}, offset
        if match[2] in members:
            raise InputError(f"{source}: member {name} is there twice")
        members[match[2]] = data
        end = offset + BLOCK + padded_length(len(data))
    if members:
        yield TarSample(key, members, start, end - start)


def padded_length(length: int) -> int:
    return length + -length % BLOCK


def read_members(stream: BinaryIO, size: int, source: str, ended: bool) -> Iterator[tuple[str, bytes, int]]:
    """Name, content and offset of the header, one by one."""
    at = 0
    while at < size:
        block = stream.read(BLOCK)
        if block == b"\0" * BLOCK and ended:
            check_nothing_follows(stream, source)
            return
        name, length = parse_header(block, f"{source}: at byte {at}")
        if at + BLOCK + padded_length(length) > size:
            raise BrokenShard(
                f"{source}: member {name[:100]!r} says {length} bytes, more than the file has; it is cut short or "
                "not what it says; build or copy it again"
            )
        data = stream.read(length)  # and its padding apart: a slice of both would be a copy
        if len(data) + len(stream.read(-length % BLOCK)) < padded_length(length):
            raise BrokenShard(f"{source}: not a whole tar (it ends in {name[:100]!r}); build or copy it again")
        yield name, data, at
        at += BLOCK + padded_length(length)
    if ended:
        raise BrokenShard(f"{source}: not a whole tar (no end blocks); build or copy it again")


def parse_header(block: bytes, where: str) -> tuple[str, int]:
    if len(block) < BLOCK:
        raise BrokenShard(f"{where}: not a whole tar (cut in a header); build or copy it again")
    try:
        name = block[NAME].partition(b"\0")[0].decode("ascii")
        length = int(block[SIZE].strip(b"\0 ") or b"0", 8)
        stated = int(block[CHECKSUM].strip(b"\0 "), 8)
    except ValueError as e:
        raise BrokenShard(f"{where}: not a header of a plain tar; build or copy it again") from e
    if stated != sum(block) - sum(block[CHECKSUM]) + 8 * ord(" ") or length < 0:
        raise BrokenShard(f"{where}: a header with a wrong checksum; build or copy it again")
    if block[TYPE] not in REGULAR or block[NAME_PREFIX].strip(b"\0"):
        raise InputError(f"{where}: member {name[:100]!r} is a link, folder or special file; shards hold plain files")
    return name, length


def check_nothing_follows(stream: BinaryIO, source: str) -> None:
    rest = stream.read(1 << 20)
    while rest:
        if rest.strip(b"\0"):
            raise InputError(f"{source}: data behind the end of the tar; build or copy it again")
        rest = stream.read(1 << 20)
