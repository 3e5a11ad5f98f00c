"""Where the frames of a long row wait until the row is known to be good."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coat.manifests.errors import EnvironmentFault

SPOOL_BYTES = 16 * 2**20  # of frames that are held in memory, and that are read at once


class Spool:
    """Frames that wait until their row is known to be good: in memory as long as they are few, else on disk."""

    def __init__(self, folder: Path, dim: int, dtype: str) -> None:
        self.dim, self.dtype = dim, np.dtype(dtype)
        self.frames = 0
        try:
            folder.mkdir(exist_ok=True)
        except OSError as e:
            raise EnvironmentFault(f"{folder}: cannot be written ({e})") from e
        self.file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=str(folder))  # noqa: SIM115

    def __del__(self) -> None:  # of a row that failed, or of a unit that was dropped
        self.file.close()

    def append(self, frames_ND: NDArray[np.generic]) -> None:
        try:
            self.file.write(np.ascontiguousarray(frames_ND).data)
        except OSError as e:
            raise EnvironmentFault(f"{self.file.name}: cannot be written ({e})") from e
        self.frames += len(frames_ND)

    def blocks(self) -> Iterator[NDArray[np.generic]]:
        block = max(1, SPOOL_BYTES // (self.dim * self.dtype.itemsize)) * self.dim * self.dtype.itemsize
        with self.file:
            self.file.seek(0)
            while data := self.file.read(block):
                yield np.frombuffer(data, self.dtype).reshape(-1, self.dim)
