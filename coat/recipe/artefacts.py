"""What a stage reads and makes, by digest: whether it is there, and whether it is the same as before.

Manifests and configs are known by what is in them; folders of audio, students and exports by the names, sizes and times
of their files; shards, runs and evaluations by the file that is written last.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from coat.manifests import storage
from coat.manifests.errors import InputError, one_line
from coat.manifests.storage import FileInfo
from coat.recipe.stages import Place, flatten

LAST = {"shards": "index.json", "run": "done.json", "evaluation": "results.json"}  # what is written last
BESIDE = {"run": ("metrics.jsonl", "base.json")}  # without which two runs of equal length would be the same
BLOCK = 1 << 24  # bytes
LARGE = 1 << 20  # bytes of a file whose digest is kept
CACHE = "digests.json"


@dataclass
class Identities:
    """Digests of places. Those of large files are kept by their stamps, so that they are read once.

    `folder`: that relative paths count from. `out`: where the recipe writes, which is no part of a corpus around it.
    `cache`: the file that keeps digests.
    """

    folder: Path
    out: Path
    cache: str
    kept: dict[str, list[str]] = field(default_factory=dict)  # path: stamp, digest

    def load(self) -> None:
        if storage.exists(self.cache):
            self.kept = storage.read_json(self.cache)

    def save(self) -> None:
        if self.kept:
            storage.write_bytes(self.cache, storage.to_json(self.kept))

    def of(self, place: Place) -> Any:
        """What tells it from another; None where it is not there. Of configs their values by key."""
        kinds: dict[str, Callable[[str], Any]] = {
            "manifest": self.of_files, "file": self.of_files, "page": self.of_files, "config": self.of_config,
            "tree": self.of_tree,
        }  # fmt: skip
        url = self.url(place.path)
        if place.kind in LAST:
            last = storage.join(url, LAST[place.kind])
            beside = [storage.join(url, name) for name in BESIDE.get(place.kind, ())]
            return (
                combine([self.of_file(f) for f in (last, *filter(storage.exists, beside))])
                if storage.exists(last)
                else None
            )
        return kinds[place.kind](url)

    def url(self, path: str) -> str:
        return path if "://" in path else str(self.folder / path)

    def of_files(self, url: str) -> str | None:
        """One file, the files of a pattern, or those of a folder (a manifest in parts)."""
        if storage.is_pattern(url):
            files = storage.expand(url)
        elif storage.is_local(url) and storage.local_path(url).is_dir():
            files = [storage.join(url, f.name) for f in sorted(storage.list_files(url), key=lambda f: f.name)]
        else:
            files = [url]
        if not files or not all(storage.exists(one) for one in files):
            return None
        return combine([self.of_file(one) for one in files])

    def of_file(self, url: str) -> str:
        found = storage.info(url)
        if not storage.is_local(url):
            return found.stamp
        if found.size < LARGE:
            return xxhash.xxh3_128_hexdigest(storage.read_bytes(url))
        known = self.kept.get(url)
        if known and known[0] == found.stamp:
            return known[1]
        digest = digest_of(storage.local_path(url))
        self.kept[url] = [found.stamp, digest]
        return digest

    def of_config(self, url: str) -> dict[str, Any] | None:
        """Its values, so that a change can be named; InputError where it is no TOML."""
        if not storage.exists(url):
            return None
        try:
            return flatten(tomllib.loads(storage.read_bytes(url).decode()))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise InputError(f"{url}: not TOML ({one_line(e)})") from e

    def of_tree(self, url: str) -> str | None:
        """A folder by the names, sizes and times of its files; a file by what is in it; a pattern by its files'."""
        if storage.is_pattern(url) or storage.is_file(url):
            return self.of_files(url)
        files: list[FileInfo] = sorted(storage.list_files(url), key=lambda f: f.name)
        if storage.is_local(url) and self.out.is_relative_to(tree := Path(storage.absolute(url))) and self.out != tree:
            files = [f for f in files if not (tree / f.name).is_relative_to(self.out)]
        return combine([f"{f.name} {f.size} {f.stamp}" for f in files]) if files else None

    def is_there(self, place: Place) -> bool:
        """Without reading it."""
        url = self.url(place.path)
        if place.kind in LAST:
            return storage.exists(storage.join(url, LAST[place.kind]))
        if place.kind == "tree" and storage.is_local(url) and storage.local_path(url).is_dir():
            return any(storage.local_path(url).iterdir())
        return storage.is_pattern(url) or storage.exists(url)


def digest_of(path: Path) -> str:
    found = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def combine(parts: list[str]) -> str:
    return xxhash.xxh3_128_hexdigest("\n".join(parts).encode())
