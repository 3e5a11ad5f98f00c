"""The outcome of one utterance: a Row, and the columns of rows.parquet and of the index."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Status = Literal["ok", "failed", "skipped"]
STATUSES: tuple[Status, ...] = ("ok", "failed", "skipped")
OK, FAILED, SKIPPED = range(3)
ROWS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),  # Utterance.digest: the id and span that were asked for
        pa.field("source", pa.string()),  # Clip.digest: the sound that was extracted; null where nothing was decoded
        pa.field("seconds", pa.float64(), nullable=False),  # decoded
        pa.field("first", pa.int64(), nullable=False),  # of its frames in frames.zarr
        pa.field("frames", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # ok, failed, skipped
        pa.field("error", pa.string()),  # "reason: message"
    ]
)
# Of rows.parquet. Earlier versions wrote the columns of ROWS_SCHEMA, which are what the index has.
UNIT_SCHEMA = ROWS_SCHEMA.append(pa.field("decoder", pa.string()))  # libsndfile, ffmpeg: what gave the samples


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one utterance, and where its frames lie."""

    unit: str
    id: str
    digest: str
    source: str | None
    seconds: float
    first: int
    frames: int
    status: Status
    error: str | None
    decoder: str | None = None  # in rows.parquet alone

    @property
    def reason(self) -> str | None:
        """The first word of the error, for counting: `missing`, `span`, `too_short`, ..."""
        return self.error.split(":", 1)[0] if self.error else None
