"""What a store says of a file."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class FileInfo:
    """`stamp` changes when the file does: the ETag; locally time and size."""

    name: str  # relative to the folder that was listed; of a single file its URL
    size: int  # bytes
    modified: datetime  # by the store's clock
    stamp: str
