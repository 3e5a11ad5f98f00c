"""A row on its way through a worker. N frames, D dim, T samples."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coat.extractors.expert import Frames, Waveform
from coat.pipeline.plan.units import PlannedRow
from coat.pipeline.store.rows import Status
from coat.pipeline.worker.spool import Spool


@dataclass(eq=False)
class DecodedRow:
    """A row on its way through the worker: a waveform, or why there is none; then frames, or why not."""

    planned: PlannedRow
    source: str | None = None
    decoder: str | None = None
    seconds: float = 0.0
    decode_seconds: float = 0.0
    waveform_T: Waveform | None = None
    given_ND: Frames | None = None  # what the expert gave, not checked yet
    frames_ND: NDArray[np.generic] | None = None  # as they are stored
    spool: Spool | None = None  # the frames of a row that is longer than a window
    long: bool = False  # to be decoded and extracted window by window
    status: Status = "ok"
    error: str | None = None

    @property
    def reason(self) -> str | None:
        return self.error.split(":", 1)[0] if self.error else None

    def fail(self, reason: str, message: str, status: Status = "failed") -> None:
        self.status, self.error = status, f"{reason}: {message}"
        self.waveform_T = self.given_ND = self.frames_ND = self.spool = None

    def blocks(self) -> Iterator[NDArray[np.generic]]:
        """The row's frames as they are stored, once: `[N, D]` as a whole, or block by block where it is long."""
        if self.spool is not None:
            yield from self.spool.blocks()
        elif self.frames_ND is not None:
            yield self.frames_ND
