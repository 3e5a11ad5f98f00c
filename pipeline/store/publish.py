"""The commit of a unit: its build becomes visible in one step.

Locally that step is the rename of a folder, done.json inside it; on an object store, which has no
rename, the objects are put one by one and done.json last. Either way a unit is there or it is not,
and two writers of one unit do no harm: they write the same bytes.
"""

import os
import shutil
from pathlib import Path

from coat.manifests import storage
from coat.pipeline.store.layout import DONE, SPEC, UNITS


def publish(build: Path, set_url: str, unit: str) -> None:
    if not storage.exists(storage.join(set_url, SPEC)):
        raise FileNotFoundError(f"no {SPEC}")  # a unit without its spec says nothing to anyone
    target = storage.join(set_url, UNITS, unit)
    if storage.is_local(set_url):
        publish_folder(build, storage.local_path(target))
        return
    for path in sorted(p for p in build.rglob("*") if p.is_file() and p.name != DONE):
        storage.upload(path, storage.join(target, path.relative_to(build).as_posix()))
    storage.upload(build / DONE, storage.join(target, DONE))


def publish_folder(build: Path, target: Path) -> None:
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
        # another run committed the same unit first: its bytes are ours
