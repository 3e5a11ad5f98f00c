"""The folders that coat writes to: do they answer, take files, have room; can Ray put its sockets there?"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from coat.doctor.child import within
from coat.doctor.finding import Finding, Request, broken, ok, warning
from coat.drawing.text import bytes_text

ANSWER_S = 5.0  # of a share
FILES_WARNED = 10_000  # that may still be made
# File systems of other machines, as Linux names them; what begins with fuse. is counted among them.
NETWORK = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph", "afs", "9p")
    + ("glusterfs", "ocfs2", "gfs2", "panfs", "wekafs", "virtiofs")
)
WRITTEN = b"coat doctor" * 1000


@dataclass(frozen=True)
class Folder:
    what: str
    path: Path
    why: str  # is written there
    least: float  # bytes free, below which there is a warning
    local: bool  # must be on this machine to be fast, and to lock
    move: str  # how to have it elsewhere


def look(request: Request) -> Iterator[Finding]:
    yield from temporary_folder()
    for folder in folders():
        try:
            yield from within(ANSWER_S, lambda folder=folder: list(state_of(folder)))
        except TimeoutError:
            yield broken(
                folder.what,
                f"{folder.path} does not answer within {ANSWER_S:g} s",
                f"ls -ld {folder.path} hangs, too: mount its share anew; or {folder.move}",
            )
    yield socket_paths()


def folders() -> Iterator[Folder]:
    from huggingface_hub.constants import HF_HUB_CACHE

    anywhere = "cd to a folder on another disk"
    yield Folder("current folder", Path.cwd(), "runs and targets, where paths are relative", 10e9, False, anywhere)
    yield Folder(
        "HF_HOME", Path(HF_HUB_CACHE), "weights from the hub", 20e9, False, "export HF_HOME=/a/larger/disk/huggingface"
    )
    move = "export TMPDIR=/a/larger/disk/tmp"
    why = "downloads that workers share, shuffles, Ray's session"
    try:
        yield Folder("temporary files", Path(tempfile.gettempdir()), why, 10e9, True, move)
    except FileNotFoundError:
        return  # `temporary_folder` has said so
    if chosen := os.environ.get("RAY_TMPDIR"):
        yield Folder("RAY_TMPDIR", Path(chosen), "Ray's session", 5e9, True, "export RAY_TMPDIR=/another/folder")


def temporary_folder() -> Iterator[Finding]:
    """Python takes another folder where TMPDIR is of no use, and does not say so; Ray takes TMPDIR all the same."""
    named = os.environ.get("TMPDIR")
    try:
        used = tempfile.gettempdir()
    except FileNotFoundError as e:
        yield broken("TMPDIR", f"no folder for temporary files ({e.strerror or e})", "export TMPDIR=/a/folder/of/yours")
        return
    if named and os.path.realpath(named) != os.path.realpath(used):
        state = "cannot be written" if os.path.isdir(named) else "is no folder"
        yield broken(
            "TMPDIR",
            f"TMPDIR={named} {state}: Python takes {used}, and Ray fails",
            f"mkdir -p {named}; chmod u+rwx {named}; or unset TMPDIR",
        )


def state_of(folder: Folder) -> Iterator[Finding]:
    """Warnings first, then one line on the folder itself, unless it cannot be used."""
    place = folder.path
    try:
        place = existing(folder.path)
        disk, status = shutil.disk_usage(place), os.statvfs(place)
        kind = file_system(place)
        with tempfile.TemporaryFile(dir=place) as f:
            f.write(WRITTEN)
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        yield broken(
            folder.what,
            f"{place} cannot be written ({e.strerror or e}): {folder.why}",
            f"df -h {place}; ls -ld {place}; then make room or allow writing, or {folder.move}",
        )
        return
    told = f"{folder.path}: {bytes_text(disk.free)} of {bytes_text(disk.total)} are free, {kind}"
    if folder.local and is_network(kind):
        yield warning(folder.what, f"{told}: a share of other machines, which is slow for this", folder.move)
    elif folder.local and status.f_flag & os.ST_NOEXEC:
        yield warning(
            folder.what, f"{told}: mounted noexec, so that torch.compile and Ray cannot load code", folder.move
        )
    elif disk.free < folder.least:
        yield warning(folder.what, f"{told}: little, for {folder.why}", f"make room, or {folder.move}")
    elif status.f_files and status.f_favail < FILES_WARNED:
        yield warning(
            folder.what, f"{told}, but only {status.f_favail} files more", f"remove small files, or {folder.move}"
        )
    else:
        yield ok(folder.what, told)


def existing(path: Path) -> Path:
    """The folder, or the nearest above it that is there: it is made when it is needed."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def file_system(path: Path) -> str:
    """`ext4`, `nfs4`, ...: of the longest mount point that the path is under, the last that was mounted there."""
    real = os.path.realpath(path)
    found = "unknown"
    longest = -1
    for mount in psutil.disk_partitions(all=True):
        point = mount.mountpoint.rstrip("/")
        if (real == point or real.startswith(point + "/")) and len(point) >= longest:
            found, longest = mount.fstype, len(point)
    return found


def is_network(kind: str) -> bool:
    return kind in NETWORK or kind.startswith("fuse.")


def socket_paths() -> Finding:
    from coat.manifests.errors import RunError
    from coat.pipeline.cluster.ray_connection import ROOM_BYTES, session_folder

    chosen = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  as Ray chooses
    try:
        other = session_folder()
    except RunError as e:
        return broken("Ray's sockets", str(e), f"export RAY_TMPDIR=/tmp/ray-{os.getuid()}")
    if other is not None:
        return ok(
            "Ray's sockets",
            f"TMPDIR={chosen} is too long for them (at most {ROOM_BYTES} bytes): coat puts them in {other}",
        )
    return ok("Ray's sockets", f"{chosen}: {len(os.fsencode(chosen))} of at most {ROOM_BYTES} bytes")
