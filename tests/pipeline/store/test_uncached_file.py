"""Files written past the page cache, on disks that allow it and on one that does not."""

import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

from coat.pipeline.store.uncached_file import BUFFER_BYTES, DIRECT, UncachedFile
from tests.disks import mounted


@pytest.mark.parametrize("sizes", [[0], [1], [4096], [BUFFER_BYTES], [3, BUFFER_BYTES, 1], [2 * BUFFER_BYTES + 5, 7]])
@pytest.mark.parametrize("direct", [True, False])
def test_the_bytes_are_those_that_were_given(tmp_path: Path, sizes: list[int], direct: bool) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, size, np.uint8) for size in sizes]
    (tmp_path / "a").write_bytes(b"x" * 100)  # replaced
    file = UncachedFile(tmp_path / "a", direct)
    for part in parts:
        file.write(part)
    file.finish()
    assert (tmp_path / "a").read_bytes() == b"".join(part.tobytes() for part in parts)
    file.close()  # again


def test_the_page_cache_is_left_alone_where_the_disk_allows(tmp_path: Path) -> None:
    file = UncachedFile(tmp_path / "a")
    if not file.is_direct():
        pytest.skip("this disk takes no direct writes")
    file.write(np.ones(BUFFER_BYTES, np.uint8))
    assert (tmp_path / "a").stat().st_size == BUFFER_BYTES  # written, not waiting
    file.end_direct()
    assert fcntl.fcntl(file.fd, fcntl.F_GETFL) & DIRECT == 0
    file.finish()


def test_a_disk_that_refuses_a_direct_write_gets_others(tmp_path: Path) -> None:
    """As some say only when they are written to: here because the place is no multiple of a block."""
    file = UncachedFile(tmp_path / "a")
    os.lseek(file.fd, 3, os.SEEK_SET)
    file.write(np.ones(BUFFER_BYTES, np.uint8))
    file.finish()
    assert (tmp_path / "a").read_bytes() == bytes(3) + b"\1" * BUFFER_BYTES


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "6m") as disk:
        file = UncachedFile(disk / "a")
        with pytest.raises(OSError, match="space") as e:
            file.write(np.ones(3 * BUFFER_BYTES, np.uint8))
        assert e.value.errno == errno.ENOSPC
        file.close()
