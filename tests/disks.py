"""Disks that really get full and really refuse."""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small tmpfs: a disk that really gets full and really refuses."""
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip(f"may not mount a tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@contextmanager
def dead_share(folder: Path) -> Iterator[None]:
    """While it lasts, all that touches `folder` gives ENOTCONN: it is mounted by FUSE, and its server has died."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as e:
        pytest.skip(f"no FUSE here: {e}")
    options = f"fd={server},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    failed = libc.mount(b"dead", os.fsencode(folder), b"fuse", 0, options.encode())
    os.close(server)
    if failed:
        pytest.skip(f"may not mount by FUSE: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class FailingDisk:
    """A file system on a loop device whose disk ends early: what lies behind its end gives EIO until `heal`.

    with failing_disk(tmp_path, fill) as disk: ...     # `fill(folder)` puts files there
    """

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder = image, folder
        os.sync()
        self.whole = image.read_bytes()

    def fail(self, at: int) -> None:
        """The disk ends after so many bytes. What was read from it before may still be cached: `forget`."""
        with self.image.open("r+b") as f:
            f.truncate(at)
        self.forget()

    def heal(self) -> None:
        with self.image.open("r+b") as f:
            f.write(self.whole)
        self.forget()

    def forget(self) -> None:
        Path("/proc/sys/vm/drop_caches").write_text("3")


@contextmanager
def failing_disk(at: Path, fill: Callable[[Path], None], megabytes: int = 16) -> Iterator[FailingDisk]:
    image, folder = at / "disk.img", at / "disk"
    folder.mkdir()
    image.write_bytes(b"")
    os.truncate(image, megabytes * 2**20)
    mount = ["mount", "-o", "loop", str(image), str(folder)]
    with ExitStack() as mounts:
        try:
            subprocess.run(["mke2fs", "-q", "-F", str(image)], check=True, capture_output=True)
            subprocess.run(mount, check=True, capture_output=True)
            mounts.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as e:
            pytest.skip(f"no disk to break here: {e}")
        fill(folder)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield FailingDisk(image, folder)
