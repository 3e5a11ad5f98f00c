"""Units that are being built: a folder each, on a local disk, named after the process that writes it."""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from coat.manifests import storage
from coat.manifests.errors import RunError
from coat.manifests.processes import ABANDONED_S, process_is_alive, this_process
from coat.pipeline.store.layout import BUILDING

cleaned: set[Path] = set()  # temporary folders, by this process


def builds_folder(set_url: str) -> Path:
    """Where units are built: on the store's own disk, so that a rename moves them; for object stores, here."""
    if storage.is_local(set_url):
        return storage.local_path(set_url) / BUILDING
    return Path(tempfile.gettempdir()) / f"coat-building-{os.getuid()}"  # a node has several users


def is_ours(folder: Path) -> bool:
    return not folder.exists() or folder.stat().st_uid == os.getuid()


def new_build(set_url: str, unit: str) -> Path:
    """An empty folder for a unit. In the temporary folder of a node the first one removes what killed workers left."""
    folder = builds_folder(set_url)
    if not storage.is_local(set_url) and folder not in cleaned:
        if not is_ours(folder):
            raise RunError(f"{folder}: belongs to another user; set TMPDIR to a folder of your own")
        cleaned.add(folder)
        remove_abandoned_builds(set_url)
    prefix = f"{this_process()}+{unit}+"
    while True:
        # Of the store's own folders none is made here: a store that was removed under the run stays removed.
        folder.mkdir(0o755 if storage.is_local(set_url) else 0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # a run that ended has removed the empty folder just now
            return Path(tempfile.mkdtemp(dir=folder, prefix=prefix))


def remove_abandoned_builds(set_url: str) -> int:
    """Remove what killed runs left half built; what a living one is building stays. Gives how many."""
    removed = 0
    folder = builds_folder(set_url)
    if not storage.is_local(set_url) and not is_ours(folder):
        return 0  # the first build will say so
    for build in folder.iterdir() if folder.is_dir() else ():
        host, pid = (build.name.split("+") + [""])[:2]
        try:
            age_s = time.time() - build.stat().st_mtime
        except FileNotFoundError:
            continue  # its run has just published it
        dead = pid.isdigit() and process_is_alive(host, int(pid)) is False
        if dead or age_s > ABANDONED_S:
            shutil.rmtree(build, ignore_errors=True)
            removed += 1
    with contextlib.suppress(OSError):  # not empty: another run builds there
        folder.rmdir()
    return removed
