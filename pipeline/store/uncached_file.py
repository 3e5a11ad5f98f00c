"""Writing a large file past the page cache: it is not read again soon, and its pages cost the CPU much.

A copy into the page cache is 0.2 ms a megabyte where its pages were in use before, and ten times that where a virtual
machine must have them from its host. Direct writes are a third of the first, and leave the cache to the audio.
"""

import errno
import fcntl
import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BUFFER_BYTES = 4 * 2**20  # written at once: a multiple of any disk's blocks
DIRECT = getattr(os, "O_DIRECT", 0)  # Linux has it


class UncachedFile:
    """A new file: `write`, then `finish`. OSError where the disk does not take it.

    Where the disk takes no direct writes, it is written as any other file. `direct` False: it will be read soon.
    """

    def __init__(self, path: Path, direct: bool = True) -> None:
        self.buffer: NDArray[np.uint8] = np.frombuffer(mmap.mmap(-1, BUFFER_BYTES), np.uint8)  # begins with a page
        self.filled = 0
        self.fd = self.open(path, DIRECT if direct else 0)

    def open(self, path: Path, flag: int) -> int:
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | flag, 0o666)
        except OSError as e:
            if e.errno != errno.EINVAL or not flag:
                raise
            return self.open(path, 0)

    def write(self, data: NDArray[np.uint8] | bytes) -> None:
        values, done = np.frombuffer(data, np.uint8), 0
        while done < len(values):
            count = min(BUFFER_BYTES - self.filled, len(values) - done)
            self.buffer[self.filled : self.filled + count] = values[done : done + count]
            self.filled, done = self.filled + count, done + count
            if self.filled == BUFFER_BYTES:
                self.write_buffer()

    def write_buffer(self) -> None:
        left = self.buffer[: self.filled].data
        while len(left):
            try:
                left = left[os.write(self.fd, left) :]
            except OSError as e:
                if e.errno != errno.EINVAL or not self.is_direct():
                    raise
                self.end_direct()  # such a disk says so only now
        self.filled = 0

    def is_direct(self) -> bool:
        return bool(fcntl.fcntl(self.fd, fcntl.F_GETFL) & DIRECT)

    def end_direct(self) -> None:
        fcntl.fcntl(self.fd, fcntl.F_SETFL, fcntl.fcntl(self.fd, fcntl.F_GETFL) & ~DIRECT)

    def finish(self) -> None:
        """Write the rest, which is no whole number of blocks; a commit must outlive a power cut, not only a kill."""
        self.end_direct()
        self.write_buffer()
        os.fsync(self.fd)
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
