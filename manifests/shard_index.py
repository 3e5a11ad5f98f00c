"""`index.json` of a shard set: what a trainer knows of targets without the code that made them.

A sample of a shard has the members `<key>.flac` (audio), `<key>.json` (id, prompt, response, ...) and
`<key>.<expert>.npy` (targets, `[frames, dim]`), one per expert that has heard it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from coat.manifests import files
from coat.manifests.errors import InputError
from coat.manifests.spec import TargetSpec

INDEX_NAME = "index.json"
FORMAT = "coat-shards/1"


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One tar."""

    name: str
    samples: int
    bytes: int
    seconds: float  # of audio
    xxh3: str  # of the file, 128 bits in hex


@dataclass(frozen=True, kw_only=True)
class ExpertInfo:
    """One expert's targets in the set. `mean` and `std` have a value per dimension, for standardising."""

    spec: TargetSpec
    samples: int
    frames: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The whole set, as `index.json` holds it. It is written last: without it there is no set."""

    path: str  # folder or URL that it was read from
    layout: str  # "joint"
    sample_rate: int  # Hz of the audio
    shards: tuple[ShardInfo, ...]
    experts: Mapping[str, ExpertInfo]
    skipped: int = 0  # utterances left out (`--missing skip`)

    @property
    def samples(self) -> int:
        return sum(s.samples for s in self.shards)

    @property
    def seconds(self) -> float:
        return sum(s.seconds for s in self.shards)

    @property
    def bytes(self) -> int:
        return sum(s.bytes for s in self.shards)

    @classmethod
    def read(cls, path: str) -> "ShardIndex":
        """Read `path/index.json`. InputError: no such set, or not one of coat's."""
        url = files.join(path, INDEX_NAME)
        try:
            data = files.read_json(url)
        except FileNotFoundError as e:
            raise InputError(f"{path}: no {INDEX_NAME}; expected what `coat build-shards --out` wrote") from e
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise InputError(f"{url}: not an index of format {FORMAT}")
        try:
            return cls(
                path=path,
                layout=data["layout"],
                sample_rate=data["sample_rate"],
                skipped=data["skipped"],
                shards=tuple(ShardInfo(**{**s, "name": plain_name(s["name"])}) for s in data["shards"]),
                experts={
                    name: ExpertInfo(
                        spec=TargetSpec.from_dict(e["spec"], url),
                        samples=e["samples"],
                        frames=e["frames"],
                        mean=tuple(e["mean"]),
                        std=tuple(e["std"]),
                    )
                    for name, e in data["experts"].items()
                },
            )
        except (KeyError, TypeError, AttributeError) as e:
            raise InputError(f"{url}: not a whole index ({e!r})") from e

    def write(self, path: str) -> None:
        files.write_bytes(files.join(path, INDEX_NAME), files.to_json(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "layout": self.layout,
            "sample_rate": self.sample_rate,
            "skipped": self.skipped,
            "samples": self.samples,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "shards": [asdict(s) for s in self.shards],
            "experts": {
                name: {
                    "spec": e.spec.to_dict(),
                    "fingerprint": e.spec.fingerprint,
                    "samples": e.samples,
                    "frames": e.frames,
                    "mean": list(e.mean),
                    "std": list(e.std),
                }
                for name, e in self.experts.items()
            },
        }


def plain_name(name: str) -> str:
    """A shard's name must be a file of the set's own folder."""
    if "/" in name or "\\" in name or name.startswith(".") or not name.endswith(".tar"):
        raise InputError(f"{name!r}: not a shard name; an index may only name tar files beside it")
    return name
