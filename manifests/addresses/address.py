"""An address as a manifest has it in `audio_filepath`, and what it says.

    a.flac                                             a whole file (`whole_file.py`)
    a.tar#offset=512&size=32044&member=b.flac          a member of a tar (`tar_member.py`)
    a.arrow#offset=4096&size=32044                     a span of any file, in bytes (`byte_range.py`)
    a.parquet#row_group=3&column=audio.bytes&row=17    a cell of a Parquet table (`parquet_cell.py`)
    ...#...&channel=1                                  one channel of any of them, from 0; else their mean

What stands before the # is a path or URL, relative to the manifest like any other. A # whose words are not these is
part of a file's name.
"""

import io
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import unquote, unquote_to_bytes

import pyarrow as pa
import pyarrow.compute

from coat.manifests.addresses.byte_range import ByteRange
from coat.manifests.addresses.parquet_cell import ParquetCell
from coat.manifests.addresses.tar_member import TarMember
from coat.manifests.addresses.whole_file import WholeFile

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers

WORD = "(?:offset|size|member|row_group|column|row|channel)=[^&#]*"
PLACE = re.compile(f"^(.+)#({WORD}(?:&{WORD})*)$", re.DOTALL)
# What comes after the file, or the row group, that is read at once.
IN_FILE, IN_ROW_GROUP = "(?s)#(?:offset|size|member|channel)=[^#]*$", "(?s)(#row_group=[0-9]+)&[^#]*$"
# As import writes them. Others may be right as well.
USUAL = (
    "(?s)^.+#(?:offset=[0-9]{1,15}&size=[0-9]{1,15}(?:&member=[^&#]*)?(?:&channel=[0-9]{1,9})?|channel=[0-9]{1,9}"
    "|row_group=[0-9]{1,15}&column=[^&#]*&row=[0-9]{1,15}(?:&channel=[0-9]{1,9})?)$"
)
USUAL_ADDRESS = re.compile(USUAL)
MOST = 2**53
KNOWN = 4096  # addresses that were taken apart last: each is asked about some six times on a clip's way


class Address(Protocol):
    """Where one recording lies."""

    @property
    def url(self) -> str:
        """The file or object that holds it."""
        ...

    def open(self, keep: bool = False) -> str | io.BytesIO:
        """A local path, or the bytes. `keep`: others on this node will ask for them, too.

        FileNotFoundError, OSError and Unreachable as `storage` gives them; EOFError where the file ends before it;
        ValueError where the file is not what the address says. Their messages do not name it: who asked does.
        """
        ...

    def size(self) -> int:
        """Bytes, as the address or the file system says."""
        ...

    def digest(self) -> str:
        """Of what was asked: another one where the file that holds it was written anew."""
        ...


def is_address(text: str) -> bool:
    """Whether it says more than the name of a file."""
    return "#" in text and PLACE.match(text) is not None


@lru_cache(KNOWN)
def split_channel(text: str) -> tuple[str, int | None]:
    """The address without its channel, and the channel. ValueError where that is no number."""
    found = PLACE.match(text) if "#" in text else None
    if found is None:
        return text, None
    words = found[2].split("&")
    channels = [word for word in words if word.startswith("channel=")]
    if not channels:
        return text, None
    rest = "&".join(word for word in words if word not in channels)
    channel = whole_number("channel", channels[0].partition("=")[2])
    return f"{found[1]}#{rest}" if rest else found[1], channel


@lru_cache(KNOWN)
def parse(text: str) -> Address:
    """What an address says, its channel aside. ValueError where its words do not belong together."""
    text, _ = split_channel(text)
    found = PLACE.match(text) if "#" in text else None
    if found is None:
        return WholeFile(text)
    url, pairs = found[1], [word.split("=", 1) for word in found[2].split("&")]
    words = dict(pairs)
    if len(words) == len(pairs):
        if words.keys() == {"offset", "size"}:
            return ByteRange(url, *numbers(words, "offset", "size"))
        if words.keys() == {"offset", "size", "member"}:
            offset, size = numbers(words, "offset", "size")
            return TarMember(url, offset, size, unquote_to_bytes(words["member"]).decode("utf-8", "surrogateescape"))
        if words.keys() == {"row_group", "column", "row"}:
            group, row = numbers(words, "row_group", "row")
            return ParquetCell(url, group, unquote(words["column"]), row)
    expected = "offset and size (and member), or row_group, column and row, each once"
    raise ValueError(f"an address with {', '.join(name for name, _ in pairs)}; expected {expected}")


def numbers(words: Mapping[str, str], *names: str) -> tuple[int, ...]:
    return tuple(whole_number(name, words[name]) for name in names)


def whole_number(name: str, value: str) -> int:
    if not re.fullmatch("[0-9]{1,16}", value) or int(value) > MOST:
        raise ValueError(f"{name} is {value[:40]!r}; expected a whole number")
    return int(value)


@lru_cache(KNOWN)
def container(text: str) -> str:
    """The file or object that holds what lies at an address."""
    found = PLACE.match(text) if "#" in text else None
    return found[1] if found else text


def group_of(text: str) -> str:
    """What is best read together: a file, a tar, a row group of a Parquet table."""
    return groups_of(pa.array([text], pa.large_string()))[0].as_py()


def groups_of(addresses: pa.Array) -> pa.Array:
    """The same of many."""
    if not pc.any(pc.match_substring(addresses, "#")).as_py():
        return addresses
    return pc.replace_substring_regex(pc.replace_substring_regex(addresses, IN_FILE, ""), IN_ROW_GROUP, r"\1")


def is_usual(text: str) -> bool:
    """As `all_usual`."""
    return USUAL_ADDRESS.fullmatch(text) is not None


def all_usual(texts: pa.Array | pa.ChunkedArray) -> bool:
    """Whether `parse` takes all of these, told fast; False also where it may."""
    marked = texts.filter(pc.match_substring(texts, "#"))
    marked = marked.filter(pc.match_substring_regex(marked, PLACE.pattern.replace("^", "(?s)^", 1)))
    return not len(marked) or bool(pc.all(pc.match_substring_regex(marked, USUAL)).as_py())
