"""A member of a tar. Its header lies before it, and shows whether the tar is still the one that was imported."""

import io
import tarfile
from dataclasses import dataclass
from urllib.parse import quote

from coat.manifests import storage
from coat.manifests.addresses.byte_range import read_parts

HEADER = tarfile.BLOCKSIZE  # 512 bytes
NAME_BYTES = 100  # of a name, that a header holds of any length


@dataclass(frozen=True)
class TarMember:
    url: str
    offset: int  # of its first byte, after the header
    nbytes: int
    member: str

    def open(self, keep: bool = False) -> io.BytesIO:
        """ValueError where another member, or none, lies there. `keep` as in ByteRange."""
        if self.offset < HEADER:
            raise ValueError(f"offset is {self.offset}; a member of a tar lies behind its header of {HEADER} bytes")
        edges = self.offset - HEADER, self.offset, self.offset + self.nbytes
        header, data = read_parts(self.url, edges)
        self.check_header(header)
        return io.BytesIO(data)

    def check_header(self, header: bytes) -> None:
        plain = self.member.encode("utf-8", "surrogateescape").ljust(NAME_BYTES, b"\0")
        if header[:NAME_BYTES] == plain and header[124:135] == b"%011o" % self.nbytes and header[257:262] == b"ustar":
            return  # as nearly all are; tarfile takes some 30 us for the others
        try:
            found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as e:
            raise ValueError(
                f"the tar was written anew: no member begins at byte {self.offset}; import it again"
            ) from e
        if found.size != self.nbytes or not same_name(found.name, self.member):
            lies, lay = f"{found.name[:100]!r} of {found.size} bytes", f"{self.member[:100]!r} of {self.nbytes}"
            raise ValueError(f"the tar was written anew: {lies} lies where {lay} lay; import it again")

    def size(self) -> int:
        return self.nbytes

    def digest(self) -> str:
        return f"{self} {storage.info(self.url).stamp}"

    def __str__(self) -> str:
        """The name comes last: what it ends in says how it is decoded."""
        name = quote(self.member.encode("utf-8", "surrogateescape"), safe="")
        return f"{self.url}#offset={self.offset}&size={self.nbytes}&member={name}"


def same_name(in_header: str, member: str) -> bool:
    """The header before the data has the name, or of a long one (PAX, GNU) the first part; Python's PAX headers have a
    question mark for what is not ASCII.
    """
    if len(in_header.encode("utf-8", "surrogateescape")) >= NAME_BYTES - 3:  # characters are not cut in two
        member = member[: len(in_header)]
    return len(in_header) == len(member) and all(
        a == b or (a == "?" and not b.isascii()) for a, b in zip(in_header, member, strict=True)
    )
