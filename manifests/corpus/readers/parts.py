"""A manifest in one file or in parts: `part-{000..063}.jsonl`, `part-*.parquet`, a folder of such files.

Rows follow each other in the order of the parts, and are numbered through, so that a number says which row of which
part it is. Relative paths count from the folder of their part. They are named from one folder, the base, so that a row
has the same name, and keeps its targets, however the corpus is cut into parts of one folder.
"""

import fnmatch
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.storage.patterns import expand_braces, without_nemo

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")  # of parts in a folder
MOST_ROWS = 2**31 - 1  # that are numbered


@dataclass(frozen=True)
class Parts:
    """Where the rows of a manifest lie."""

    base: str  # the folder that their paths count from; absolute
    urls: tuple[str, ...]
    firsts: tuple[int, ...]  # of each part the number of rows (of JSON: lines) before it

    def place(self, row: int) -> tuple[str, int]:
        """The part, and the row in it, from 1."""
        part = bisect_right(self.firsts, row - 1) - 1
        return self.urls[part], row - self.firsts[part]

    def name(self, row: int) -> str:
        """For people."""
        url, number = self.place(row)
        return f"row {number}" if len(self.urls) == 1 else f"row {number} of {url}"


def find_parts(path: str) -> tuple[str, list[str]]:
    """The base, and the files. InputError where one is missing, or there is none."""
    if storage.is_pattern(path):
        found = storage.expand(path)
        storage.check_all_there(found)
        return fixed_folder(path), found
    if not is_folder(path):
        return storage.parent(storage.absolute(path)), [path]
    names = [n for n in storage.list_names(path) if n.endswith(SUFFIXES) and not n.startswith(".")]
    if not names:
        raise InputError(f"{path}: a folder without {', '.join(SUFFIXES)} in it; expected a manifest, or its parts")
    return storage.absolute(path), [storage.join(path, name) for name in names]


def is_folder(path: str) -> bool:
    if storage.is_local(path):
        return storage.local_path(path).is_dir()
    return not path.endswith((*SUFFIXES, ".json")) and not storage.is_file(path) and storage.exists(path)


def fixed_folder(pattern: str) -> str:
    """The folder of a pattern in whose name nothing is left open: it stays when parts are added."""
    opened = min(at for at in map(pattern.find, ("{", "*", "?", "[", "_OP_")) if at >= 0)
    folder = pattern[:opened].rpartition("/")[0]
    if not folder:
        folder = "/" if pattern.startswith("/") else "."
    return storage.absolute(folder)


def is_part(url: str, path: str) -> bool:
    """Whether a file that is written at `url` would be read as a part of the manifest `path`."""
    if storage.is_pattern(path):
        names = expand_braces(without_nemo(path))
        return any(fnmatch.fnmatchcase(storage.absolute(url), storage.absolute(name)) for name in names)
    return is_folder(path) and storage.parent(storage.absolute(url)) == storage.absolute(path).rstrip("/")


def named_from(base: str, folder: str, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Paths that count from `folder`, as they count from `base`: as they are where that is the same."""
    if folder == base:
        return paths
    below = base.rstrip("/") + "/"
    prefix = folder.removeprefix(below) + "/"
    fixed = pc.or_(pc.match_substring_regex(paths, "^(/|~/)"), pc.match_substring(paths, "://"))
    moved = pc.binary_join_element_wise(pa.scalar(prefix, paths.type), paths, pa.scalar("", paths.type))
    return pc.if_else(pc.or_(fixed, pc.equal(paths, "")), paths, moved)
