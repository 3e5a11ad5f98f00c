"""A manifest into parts that share no audio, by hashing: the same rows go the same way in every run.

A row's part depends on the seed and on its own group alone, so a corpus that grows keeps its split.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.readers.parts import is_part
from coat.manifests.corpus.utterance import SAFE_KEY, Utterance
from coat.manifests.errors import SHOWN, InputError, ManifestError

Group = tuple[str, str]  # what is held together: ("audio", path), ("id", id) or (key, value)


@dataclass(frozen=True)
class SplitPart:
    name: str
    path: str
    rows: int
    seconds: float


def split_manifest(
    path: str, shares: Mapping[str, float], *, by: str = "audio", seed: int = 0, out_dir: str | None = None
) -> list[SplitPart]:
    """Write `<stem>.<part>.jsonl` for each share (of the groups; they sum to 1), beside the manifest or in `out_dir`.

    Rows of one audio file stay together, and with `by` the name of a key (`speaker`) all rows of one value
    too; `by="id"` deals out each row by itself. InputError: shares that do not sum to 1, rows without the
    key, or a part that would be empty.
    """
    check_shares(shares)
    manifest = Manifest.read(path)
    parts: dict[str, list[Utterance]] = {name: [] for name in shares}
    for u, group in zip(manifest, row_groups(manifest, by), strict=True):
        parts[part_of(group, shares, seed)].append(u)
    if empty := [name for name, rows in parts.items() if not rows]:
        raise InputError(
            f"{path}: no rows for {', '.join(empty)}; the corpus has too few groups: "
            "give a larger share, another --seed, or --by id"
        )
    base = manifest.base
    folder = out_dir if out_dir is not None else storage.parent(path) if storage.is_file(path) else base
    outs = {part: storage.join(folder, f"{stem(path)}.{part}.jsonl") for part in parts}
    if not storage.is_file(path) and (inside := [out for out in outs.values() if is_part(out, path)]):
        raise InputError(f"{inside[0]}: would be a part of {path}; --out names another folder")
    written = []
    for part, rows in parts.items():
        out = Manifest([rebase_path(u, base, folder) for u in rows], outs[part])
        out.write(out.path)
        written.append(SplitPart(part, out.path, len(out), out.seconds))
    return written


def stem(path: str) -> str:
    """What the names of its parts begin with: its own without suffix, and without what is left open in it."""
    name = path.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gz")
    name = re.sub(r"\{[^{}]*\}|_OP_.*?_CL_|\[[^]]*\]|[*?]", "", name.removesuffix(".jsonl").removesuffix(".parquet"))
    return name.strip("-_.") or "manifest"


def check_shares(shares: Mapping[str, float]) -> None:
    if any(not SAFE_KEY.fullmatch(name) for name in shares):
        raise InputError(f"parts {', '.join(shares)}: names are letters, digits, - and _, for they become file names")
    if any(not 0 < share <= 1 for share in shares.values()) or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        shares_text = " ".join(f"{name}={share:g}" for name, share in shares.items())
        raise InputError(
            f"shares {shares_text or '(none)'}: expected shares above 0 that sum to 1, as in train=0.9 valid=0.1"
        )


def row_groups(manifest: Manifest, by: str) -> list[Group]:
    """The group of each row, named by the smallest of what it joins (a speaker in two files joins both)."""
    if by == "id":
        return [("id", u.id) for u in manifest]
    joined = UnionFind()
    keys = [[("id", u.id) if u.text_only else ("audio", u.audio_filepath)] for u in manifest]
    if by != "audio":
        problems = [manifest.problem(u.row, f"no {by!r} to split by") for u in manifest if key_value(u, by) is None]
        if problems:
            raise ManifestError(problems[:SHOWN] if len(problems) == len(manifest) else problems)
        keys = [[*key, (by, str(key_value(u, by)))] for key, u in zip(keys, manifest, strict=True)]
    for key in keys:
        joined.add(key)
    return [joined.root(key[0]) for key in keys]


def key_value(u: Utterance, name: str) -> Any:
    value = u.to_row().get(name)
    return None if value == "" else value


class UnionFind:
    """Union-find over groups; the root of a set is its smallest member, whatever the order of rows."""

    def __init__(self) -> None:
        self.parent: dict[Group, Group] = {}

    def root(self, group: Group) -> Group:
        self.parent.setdefault(group, group)
        while self.parent[group] != group:
            self.parent[group] = self.parent[self.parent[group]]
            group = self.parent[group]
        return group

    def add(self, members: Iterable[Group]) -> None:
        roots = [self.root(m) for m in members]
        for r in roots:
            self.parent[r] = min(roots)


def part_of(group: Group, shares: Mapping[str, float], seed: int) -> str:
    """The part whose stretch of 0..1 the group's hash falls into."""
    at = xxhash.xxh3_64_intdigest("\0".join((str(seed), *group)).encode()) / 2**64
    edge = 0.0
    for name, share in shares.items():
        edge += share
        if at < edge:
            return name
    return list(shares)[-1]  # the edges sum to 1 but for rounding


def rebase_path(u: Utterance, base: str, folder: str) -> Utterance:
    """The row as a manifest in another folder has it."""
    if (
        u.text_only
        or storage.absolute(base) == storage.absolute(folder)
        or "://" in u.audio_filepath
        or u.audio_filepath.startswith("/")
    ):
        return u
    return replace(u, audio_filepath=storage.absolute(u.audio))
