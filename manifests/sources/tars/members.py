"""The members of a tar, told by their headers; what lies between is passed over, but for small texts.

`tarfile` parses the headers. Where it stops without a word, this goes on or says so: at a damaged header, at the end of
a tar that another one was joined to, at the end of the file. Names are data: nothing is ever written under them.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from coat.manifests import storage
from coat.manifests.addresses import ByteRange, TarMember
from coat.manifests.errors import InputError, NoAccess

BLOCK = tarfile.BLOCKSIZE  # 512 bytes
MOST_HEADER = 2**20  # of a long name
MOST_TEXT = 16 * 2**20
SCAN = 2**20  # of zeros, at once
NOT_A_TAR: tuple[type[Exception], ...] = (tarfile.TarError, ValueError, IndexError, OverflowError, RecursionError)
# How compressed files begin, and what makes tars of them.
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file in a tar."""

    url: str  # of the tar
    number: int  # as `tar -t` lists it, from 1
    name: str
    offset: int  # of its data
    nbytes: int
    is_named: bool = True  # whether the header before the data has its name and size

    def address(self) -> str:
        """A member whose name or size is in another header alone is a span of bytes."""
        if self.is_named:
            return str(TarMember(self.url, self.offset, self.nbytes, self.name))
        return str(ByteRange(self.url, self.offset, self.nbytes))


@dataclass(frozen=True)
class Unusable:
    """Something in a tar that cannot be read, and why."""

    number: int
    message: str
    name: str = ""  # of the member; empty where the tar breaks off


class Headers:
    """A file as `tarfile` reads headers from it: never more at once than a long name needs."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)

    def tell(self) -> int:
        return self.file.tell()


class TarReader:
    """One tar, which `open_tar` opens."""

    def __init__(self, url: str, file: BinaryIO, nbytes: int) -> None:
        self.url, self.file, self.nbytes = url, file, nbytes
        self.ends = 0  # ends of archives that were met
        self.behind = 0  # members that lie behind the first one
        self.number = 0

    def members(self) -> Iterator[Member | Unusable]:
        """In their order. Folders are passed over."""
        at = 0
        parser = self.parser()
        while at < self.nbytes:
            self.file.seek(at)
            block = self.file.read(BLOCK)
            if not block.strip(b"\0"):
                at = self.skip_zeros(at)
                self.ends += 1
                parser = self.parser()
                continue
            self.file.seek(at)
            self.number += 1
            try:
                info = tarfile.TarInfo.fromtarfile(parser)
                following: int = parser.offset
                if info.size < 0 or following <= at:
                    raise tarfile.ReadError("a negative size")
            except NOT_A_TAR as e:
                yield Unusable(self.number, self.why_not(at, e))
                return
            self.behind += self.ends > 0
            if (found := self.usable(info)) is not None:
                yield found
                if following > self.nbytes:
                    return
            at = following

    def parser(self) -> Any:
        """A TarFile that has read nothing yet."""
        made: Any = tarfile.TarFile(fileobj=BytesIO(bytes(2 * BLOCK)), encoding="utf-8", errors="surrogateescape")
        made.fileobj = Headers(self.file)
        return made

    def usable(self, info: tarfile.TarInfo) -> Member | Unusable | None:
        """None of a folder."""
        name = shown(info.name)
        if info.isdir():
            return None
        if info.issym() or info.islnk():
            kind = f"a link to {shown(info.linkname)}"
        elif info.issparse():
            kind = "stored with holes (sparse)"
        elif not info.isreg():
            kind = f"no plain file (type {info.type!r})"
        elif info.offset_data + info.size > self.nbytes:
            lacks = info.offset_data + info.size - self.nbytes
            said = f"{name}: the tar ends {lacks} bytes before it does: it is cut short; copy it again"
            return Unusable(self.number, said, info.name)
        else:
            return Member(self.url, self.number, info.name, info.offset_data, info.size, self.is_named(info))
        said = f"{name}: {kind}; it cannot be read in place: pack the tar anew with plain files"
        return Unusable(self.number, said, info.name)

    def is_named(self, info: tarfile.TarInfo) -> bool:
        if info.offset_data - info.offset == BLOCK and not info.pax_headers:
            return True
        self.file.seek(info.offset_data - BLOCK)
        try:
            TarMember(self.url, info.offset_data, info.size, info.name).check_header(self.file.read(BLOCK))
        except ValueError:
            return False
        return True

    def why_not(self, at: int, error: Exception) -> str:
        left = self.nbytes - at
        if left < BLOCK or (isinstance(error, tarfile.TarError) and "truncated" in str(error)):
            return f"the tar ends in the middle of a header (byte {at}): it is cut short; copy it again"
        if self.ends:
            return f"{left} bytes from byte {at} on, behind the end of the tar, are no tar: they are not read"
        if self.number == 1:
            return f"no tar (no header at its start: {error})"
        return f"a damaged header at byte {at} ({error}); {left} bytes from there on are not read: copy the tar again"

    def skip_zeros(self, at: int) -> int:
        """Where they end: at a block that holds something else, or the end of the file."""
        self.file.seek(at)
        while data := self.file.read(SCAN):
            if rest := data.lstrip(b"\0"):
                return at + (len(data) - len(rest)) // BLOCK * BLOCK
            at += len(data)
        return at

    def read(self, member: Member) -> bytes:
        """A text. ValueError where it is too large for one."""
        if member.nbytes > MOST_TEXT:
            raise ValueError(f"{shown(member.name)}: {member.nbytes} bytes; expected a text of at most {MOST_TEXT}")
        self.file.seek(member.offset)
        return self.file.read(member.nbytes)

    def notes(self) -> Iterator[str]:
        """After the members: what is unusual about the tar as a whole."""
        if self.behind:
            yield f"{self.url}: {self.behind} members behind its first end (tars that were joined), which were read too"
        if not self.ends:
            yield f"{self.url}: no end-of-archive blocks; it may be cut short"


@contextmanager
def open_tar(url: str) -> Iterator[TarReader]:
    """`url` absolute. Of a store, blocks are downloaded once a node, and serve what reads the audio then. InputError
    where it is none, or compressed as a whole.
    """
    url = storage.absolute(url)
    if not is_plain_name(url):
        raise InputError(f"{url}: {compressed('gunzip' if url.lower().endswith(('.gz', '.tgz')) else 'unpack')}")
    try:
        nbytes = storage.size(url)
        file = storage.local_path(url).open("rb") if storage.is_local(url) else storage.open_blocks(url)
    except (FileNotFoundError, IsADirectoryError) as e:
        raise InputError(f"{url}: no such file") from e
    except PermissionError as e:
        raise NoAccess(storage.no_access(url, e)) from e
    with file:
        head = file.read(8)
        if tool := next((tool for magic, tool in COMPRESSED.items() if head.startswith(magic)), ""):
            raise InputError(f"{url}: {compressed(tool)}")
        yield TarReader(url, file, nbytes)


def compressed(tool: str) -> str:
    return f"a compressed tar, of which no member can be read by itself; make it a plain one first: {tool} FILE"


def is_plain_name(url: str) -> bool:
    return not url.lower().endswith(COMPRESSED_SUFFIXES)


def shown(name: str) -> str:
    """A member's name in a message: one line, and text."""
    return ascii(name)[1:-1][:200] if not name.isprintable() else name[:200]
