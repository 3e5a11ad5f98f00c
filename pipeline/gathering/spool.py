"""Bytes that are put away and read again: in memory up to a limit, beyond it in an unnamed temporary file."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from coat.manifests.errors import RunError

MEMORY_BYTES = 256 * 2**20  # of one spool


class Spool:
    """Many threads may put. RunError where the temporary folder does not take it."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self.file = tempfile.SpooledTemporaryFile(max_size=memory_bytes, prefix="coat-spool-")  # noqa: SIM115
        self.size = 0
        self.lock = threading.Lock()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.file.close()

    def put(self, data: bytes | memoryview) -> int:
        """The place of the data."""
        with self.lock, full_disk_named():
            start = self.size
            self.file.seek(start)
            self.file.write(data)
            self.size += len(data)
            return start

    def read(self, start: int, stop: int) -> bytes:
        return self.get(start, stop - start)

    def get(self, start: int, length: int) -> bytes:
        with self.lock, full_disk_named():  # what was written last may still have to go to the disk
            self.file.seek(start)
            data = self.file.read(length)
        assert len(data) == length, (start, length, len(data))
        return data


@contextmanager
def full_disk_named() -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise RunError(
            f"{tempfile.gettempdir()}: cannot hold what is gathered ({e.strerror or e}); point TMPDIR at a larger "
            "disk, or give a smaller --block-size"
        ) from e
