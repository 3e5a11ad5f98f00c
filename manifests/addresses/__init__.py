"""Where audio lies: a file, a member of a tar, a span of any file, a cell of a Parquet table; here or in a store.

audio, corpus and sources import it. It decodes nothing: of coat.manifests it imports storage and errors.
"""

from coat.manifests.addresses.address import (
    Address,
    all_usual,
    container,
    group_of,
    groups_of,
    is_address,
    is_usual,
    parse,
    split_channel,
)
from coat.manifests.addresses.byte_range import ByteRange
from coat.manifests.addresses.parquet_cell import ParquetCell
from coat.manifests.addresses.tar_member import TarMember
from coat.manifests.addresses.whole_file import WholeFile

__all__ = [
    "Address",
    "ByteRange",
    "ParquetCell",
    "TarMember",
    "WholeFile",
    "all_usual",
    "container",
    "group_of",
    "groups_of",
    "is_address",
    "is_usual",
    "parse",
    "split_channel",
]
