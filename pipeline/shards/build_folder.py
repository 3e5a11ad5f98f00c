"""`OUT/building/`: what a build has finished before its index, and who builds there.

    OUT/building/<recipe>/shard-000000.json   one a finished tar: what a rerun needs to go on behind it
    OUT/building/<host>+<pid>/                a living build's tar in the making, and its recipe.json

It disappears with the index. No lock: two builds of one recipe write the same bytes; other recipes are refused.
"""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.processes import ABANDONED_S, process_is_alive, this_process
from coat.manifests.shards.energon import META_FOLDER
from coat.manifests.shards.index import INDEX_NAME, SIDECARS, Sidecar
from coat.manifests.shards.samples_table import SAMPLES_NAME
from coat.pipeline.shards.recipe import RECIPE_NAME, Recipe

BUILDING = "building"
CLAIM_ATTEMPTS = 5
SET_FILES = (INDEX_NAME, SAMPLES_NAME, SIDECARS, RECIPE_NAME, BUILDING, META_FOLDER)


class BuildFolder:
    """A build's place in OUT.

    InputError where a living process builds another recipe there, or where OUT has files that no shard set has.
    """

    def __init__(self, out: str, recipe: Recipe) -> None:
        self.out, self.recipe = out, recipe
        self.url = storage.join(out, BUILDING)
        self.records = storage.join(self.url, recipe.digest)
        self.process = this_process()
        self.check_others()
        self.local_folder: Path | None = None
        self.claim()

    def claim(self) -> None:
        claim = storage.to_json({"recipe": self.recipe.digest})
        for _ in range(CLAIM_ATTEMPTS):
            with contextlib.suppress(InputError):  # a build that ends removes the empty folder in this instant
                storage.write_bytes(storage.join(self.url, self.process, RECIPE_NAME), claim)
                return
        storage.write_bytes(storage.join(self.url, self.process, RECIPE_NAME), claim)

    def check_others(self) -> None:
        foreign = [n for n in storage.list_names(self.out) if not (n in SET_FILES or n.startswith((".", "shard-")))]
        if foreign:
            raise InputError(f"{self.out}: holds {foreign[0]}, which is not of a shard set; give a folder of its own")
        for name in storage.list_names(self.url):
            if name in (self.process, self.recipe.digest):
                continue
            if "+" in name and writer_is_alive(storage.join(self.url, name), name):
                try:
                    claim = storage.read_json(storage.join(self.url, name, RECIPE_NAME))
                except FileNotFoundError:
                    continue  # it has just begun, or just ended
                if claim.get("recipe") == self.recipe.digest:
                    continue
                host, _, pid = name.partition("+")
                raise InputError(
                    f"{self.out}: process {pid} of {host} builds shards with other options there; wait for it, or give "
                    f"another --out (where it is dead, remove {self.url}/{name})"
                )
            remove_tree(storage.join(self.url, name))  # of a dead build, or what a dead one with other options finished

    def temporary_folder(self) -> Path:
        """A folder on the disk of OUT, so that a rename moves a tar; for object stores, here."""
        if self.local_folder is None:
            if storage.is_local(self.url):
                self.local_folder = storage.local_path(storage.join(self.url, self.process))
            else:
                self.local_folder = Path(tempfile.mkdtemp(prefix="coat-shards-"))
        self.local_folder.mkdir(parents=True, exist_ok=True)
        return self.local_folder

    def read_record(self, name: str) -> dict[str, Any] | None:
        """Of a finished tar; None where it is not, or its tar is not there as it was finished."""
        try:
            record = storage.read_json(storage.join(self.records, f"{name}.json"))
            size = storage.size(storage.join(self.out, name))
        except FileNotFoundError:
            return None
        return record if size == record["info"]["bytes"] else None

    def write_record(self, name: str, record: dict[str, Any]) -> None:
        storage.write_bytes(storage.join(self.records, f"{name}.json"), storage.to_json(record, indent=None))

    def release(self, finished: bool) -> None:
        """Take the claim away, and with the set finished the records too, unless another build is at work with them."""
        remove_tree(storage.join(self.url, self.process))
        if self.local_folder is not None:
            shutil.rmtree(self.local_folder, ignore_errors=True)
        if finished and not [name for name in storage.list_names(self.url) if "+" in name]:
            remove_tree(self.records)
        storage.remove_if_empty(self.url)


def writer_is_alive(url: str, process: str) -> bool:
    """Whether the process (`host+pid`) that writes the file or folder at `url` is still there, as far as we can see."""
    host, _, pid = process.rpartition("+")
    is_alive = process_is_alive(host, int(pid)) if pid.isdigit() else False
    if is_alive is not None:
        return is_alive
    if not storage.is_local(url):
        return True  # it may be; a store does not say when it was last touched
    try:
        return time.time() - storage.local_path(url).stat().st_mtime < ABANDONED_S
    except FileNotFoundError:
        return False


def remove_abandoned_files(folder: str) -> None:
    """Files of a folder that a writer had not yet renamed when it was killed."""
    for name in storage.list_names(folder):
        owner = name.rsplit("~", 2)[1:2]
        if name.startswith(".") and owner and not writer_is_alive(storage.join(folder, name), owner[0]):
            storage.remove(storage.join(folder, name))


def remove_tree(url: str) -> None:
    """A folder and all in it. Parts may be gone already: two builds may remove it at the same time."""
    if storage.is_local(url):
        shutil.rmtree(storage.local_path(url), ignore_errors=True)
        return
    storage.remove_tree(url)


def remove_set(out: str) -> None:
    """A finished set, its index first, so that what is left of it can never be taken for one."""
    storage.remove(storage.join(out, INDEX_NAME))
    remove_tree(storage.join(out, SIDECARS))


def remove_leftovers(out: str, kept: set[str], identity: str) -> None:
    """What an earlier set or a killed build left: tars beyond those of this set, sidecars made for other tars,
    and files that were never renamed.
    """
    for folder in (out, storage.join(out, META_FOLDER)):
        remove_abandoned_files(folder)
    for expert in storage.list_names(storage.join(out, SIDECARS)):
        url = storage.join(out, SIDECARS, expert)
        side = Sidecar.read(url, expert)
        if side is not None and side.of != identity:
            remove_tree(url)
    for name in storage.list_names(out):
        if name.startswith("shard-") and name not in kept:
            storage.remove(storage.join(out, name))
