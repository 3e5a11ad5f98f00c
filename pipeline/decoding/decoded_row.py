"""A row on its way through a worker. N frames, D dim, T samples."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coat.extractors.expert import Frames, Waveform
from coat.manifests.audio.file import AudioFile
from coat.pipeline.decoding.spool import Spool
from coat.pipeline.plan.units import PlannedRow
from coat.pipeline.store.rows import Status


@dataclass
class DecodeCost:
    """What it took to have audio, and what it did not take because another expert of the cut had it before."""

    seconds: float = 0.0  # of decoding threads
    clips: int = 0  # decoded
    requests: int = 0  # files opened, objects fetched
    saved_seconds: float = 0.0
    saved_clips: int = 0
    saved_requests: int = 0
    waited: float = 0.0  # seconds that a thread waited for another one to have the same audio

    def add(self, other: "DecodeCost") -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))


class Source(NamedTuple):
    """What a row's audio was."""

    digest: str  # of its samples at their own rate
    decoder: str | None  # libsndfile, ffmpeg: what gave them


@dataclass(eq=False)
class DecodedRow:
    """A row on its way through the worker: a waveform, or why there is none; then frames, or why not."""

    planned: PlannedRow
    source: str | None = None
    decoder: str | None = None
    seconds: float = 0.0
    cost: DecodeCost = field(default_factory=DecodeCost)
    waveform_T: Waveform | None = None
    given_ND: Frames | None = None  # what the expert gave, not checked yet
    frames_ND: NDArray[np.generic] | None = None  # as they are stored
    spool: Spool | None = None  # the frames of a row that is longer than a window
    # Of a row that is longer than a window: its file, to be decoded window by window; where experts share a decode,
    # its samples and what they were.
    long: AudioFile | tuple[Waveform, Source] | None = None
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
