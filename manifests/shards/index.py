"""`index.json` of a shard set: what a trainer knows of targets without the code that made them.

    OUT/index.json         tars, experts, statistics; written last: without it there is no set
    OUT/samples.parquet    a row per sample, in the order of the tars: SAMPLE_SCHEMA, and the frames by expert
    OUT/shard-000000.tar   `<key>.flac` (audio), `<key>.json` (id, prompt, response, ...), `<key>.<expert>.npy`
    OUT/sidecars/<expert>/ index.json, samples.parquet, and a tar for each of the set's, with that expert's targets

Sidecars that lie there belong to the set, so that adding one touches no other file.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import xxhash

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.shards.info import ExpertInfo, ShardInfo, shard_infos
from coat.manifests.shards.samples_table import SamplesFile, open_samples, read_samples_table

INDEX_NAME, SIDECARS = "index.json", "sidecars"
SHARDS_FORMAT, SIDECAR_FORMAT = "coat-shards/1", "coat-sidecar/1"


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The tars of one expert that lie beside those of the set, of the same names and in the same order."""

    path: str  # its folder
    of: str  # `ShardIndex.identity` of the set that it was made for
    expert: str
    info: ExpertInfo
    shards: tuple[ShardInfo, ...]
    samples_xxh3: str

    @cached_property
    def by_name(self) -> dict[str, ShardInfo]:
        return {s.name: s for s in self.shards}

    @classmethod
    def read(cls, path: str, expert: str) -> "Sidecar | None":
        """None where it is not complete. InputError where it is none."""
        url = storage.join(path, INDEX_NAME)
        try:
            data = storage.read_json(url)
        except FileNotFoundError:
            return None
        if not isinstance(data, dict) or data.get("format") != SIDECAR_FORMAT or data.get("expert") != expert:
            raise InputError(f"{url}: not an index of format {SIDECAR_FORMAT} for {expert}")
        try:
            return cls(
                path=path,
                of=data["of"],
                expert=expert,
                info=ExpertInfo.from_dict(data["info"], url),
                shards=shard_infos(data["shards"]),
                samples_xxh3=data["samples_xxh3"],
            )
        except (KeyError, TypeError, AttributeError) as e:
            raise InputError(f"{url}: not a whole index ({e!r})") from e

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": SIDECAR_FORMAT,
            "of": self.of,
            "expert": self.expert,
            "info": self.info.to_dict(),
            "shards": [asdict(s) for s in self.shards],
            "samples_xxh3": self.samples_xxh3,
        }


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The whole set, as `index.json` and the sidecars' hold it."""

    path: str  # folder or URL that it was read from
    layout: str  # "joint", or "sidecar": no targets in the set's own tars
    sample_rate: int  # Hz of the audio
    shards: tuple[ShardInfo, ...]
    experts: Mapping[str, ExpertInfo]  # those of the sidecars too
    skipped: int = 0  # utterances left out (`--missing skip`)
    audio: str = "flac"  # "original": files as they were; "none": the json says where they lie
    samples_xxh3: str = ""  # of samples.parquet; "" in sets of before it
    sidecars: Mapping[str, Sidecar] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return sum(s.samples for s in self.shards)

    @property
    def seconds(self) -> float:
        return sum(s.seconds for s in self.shards)

    @property
    def bytes(self) -> int:
        return sum(s.bytes for s in (*self.shards, *(s for side in self.sidecars.values() for s in side.shards)))

    @property
    def identity(self) -> str:
        """Of the set's own tars: what a sidecar was made for."""
        text = "\n".join(f"{s.name} {s.samples} {s.xxh3}" for s in self.shards)
        return xxhash.xxh3_64_hexdigest(text.encode())

    @property
    def own(self) -> dict[str, ExpertInfo]:
        """Experts whose targets lie in the set's own tars."""
        return {name: e for name, e in self.experts.items() if name not in self.sidecars}

    @classmethod
    def read(cls, path: str) -> "ShardIndex":
        """Read `path/index.json`. InputError: no such set, or not one of coat's, or a sidecar of another set."""
        url = storage.join(path, INDEX_NAME)
        try:
            data = storage.read_json(url)
        except FileNotFoundError as e:
            raise InputError(f"{path}: no {INDEX_NAME}; expected what `coat build-shards --out` wrote") from e
        if not isinstance(data, dict) or data.get("format") != SHARDS_FORMAT:
            raise InputError(f"{url}: not an index of format {SHARDS_FORMAT}")
        try:
            index = cls(
                path=path,
                layout=data["layout"],
                sample_rate=data["sample_rate"],
                skipped=data["skipped"],
                shards=shard_infos(data["shards"]),
                experts={name: ExpertInfo.from_dict(e, url) for name, e in data["experts"].items()},
                audio=data.get("audio", "flac"),
                samples_xxh3=data.get("samples_xxh3", ""),
            )
        except (KeyError, TypeError, AttributeError) as e:
            raise InputError(f"{url}: not a whole index ({e!r})") from e
        return index.with_sidecars()

    def with_sidecars(self) -> "ShardIndex":
        """With those that lie beside it by now."""
        folder = storage.join(self.path, SIDECARS)
        found = {name: Sidecar.read(storage.join(folder, name), name) for name in storage.list_names(folder)}
        sidecars = {name: side for name, side in found.items() if side is not None}
        for name, side in sidecars.items():
            if side.of != self.identity:
                raise InputError(
                    f"{side.path}: made for other shards than those of {self.path} now; remove it, and "
                    f"`coat shards add-expert` {name} again"
                )
        experts = {**self.own, **{name: side.info for name, side in sidecars.items()}}
        fields = {k: v for k, v in self.__dict__.items() if k not in ("experts", "sidecars")}
        return ShardIndex(**fields, experts=experts, sidecars=sidecars)

    def write(self, path: str) -> None:
        storage.write_bytes(storage.join(path, INDEX_NAME), storage.to_json(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": SHARDS_FORMAT,
            "layout": self.layout,
            "audio": self.audio,
            "sample_rate": self.sample_rate,
            "skipped": self.skipped,
            "samples": self.samples,
            "seconds": self.seconds,
            "bytes": sum(s.bytes for s in self.shards),
            "samples_xxh3": self.samples_xxh3,
            "shards": [asdict(s) for s in self.shards],
            "experts": {name: e.to_dict() for name, e in self.own.items()},
        }

    def table(self) -> pa.Table:
        """samples.parquet: where each sample lies, how long it is, and its frames by expert."""
        return read_samples_table(self.path, self.samples_xxh3)

    def open_samples(self) -> AbstractContextManager[SamplesFile]:
        """The same, some rows at a time."""
        return open_samples(self.path, self.samples_xxh3)
