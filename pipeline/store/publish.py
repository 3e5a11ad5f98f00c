"""The commit of a unit: its build becomes visible in one step, and of two writers of one unit exactly one commits.

Locally that step is the rename of a folder, done.json inside it. An object store has no rename. There each writer puts
its objects under a name of its own, `units/<unit>/<writer>/`, and then `done.json`, which names the writer, on the
condition that none is there. So the keys of two writers never mix; the one that comes second removes its own.
"""

import contextlib
import os
import shutil
from pathlib import Path

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError
from coat.pipeline.store.layout import DONE, SPEC, UNITS


def publish(build: Path, set_url: str, unit: str, writer: str) -> bool:
    """Whether this build was the first; if not, the unit is there all the same, by another writer."""
    if not storage.exists(storage.join(set_url, SPEC)):
        raise FileNotFoundError(f"no {SPEC}")  # a unit without its spec says nothing to anyone
    target = storage.join(set_url, UNITS, unit)
    if storage.is_local(set_url):
        return publish_folder(build, storage.local_path(target))
    data = storage.join(target, writer)
    try:
        for path in sorted(p for p in build.rglob("*") if p.is_file() and p.name != DONE):
            storage.upload(path, storage.join(data, path.relative_to(build).as_posix()))
    except BaseException:
        with contextlib.suppress(OSError, RunError, InputError):  # what stays is found by `coat verify`
            storage.remove_tree(data)
        raise
    # Where this raises, done.json may be there nevertheless: then the data must be, too.
    first = storage.put_if_absent(storage.join(target, DONE), (build / DONE).read_bytes())
    if not first:
        storage.remove_tree(data)
    return first


def publish_folder(build: Path, target: Path) -> bool:
    for path in sorted(build.rglob("*")):  # a commit must outlive a power cut, not only a kill
        if path.is_file():
            with open(path, "rb") as f:
                os.fsync(f.fileno())
    build.chmod(0o755)
    target.parent.mkdir(exist_ok=True)
    if target.exists() and not (target / DONE).exists():  # damaged after its commit: a rename brings all or nothing
        os.rename(target, build.with_name(f"{build.name}+damaged"))
        shutil.rmtree(build.with_name(f"{build.name}+damaged"), ignore_errors=True)
    try:
        os.rename(build, target)
    except OSError:
        if not (target / DONE).exists():
            raise
        return False  # another run committed the same unit first
    return True
