"""What decides the bytes of a shard set, besides the manifests and the store that it names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import xxhash

from coat.manifests import storage
from coat.manifests.errors import InputError

Missing = Literal["fail", "mask", "skip"]
Layout = Literal["joint", "sidecar"]
AudioForm = Literal["flac", "original", "none"]

RECIPE_NAME = "recipe.json"
VERSION = 1  # of the code that makes bytes of a recipe: raised when they change
SAMPLE_RATE = 16_000  # Hz; what the audio towers of the students hear
SHARD_BYTES = 256 * 2**20
LIST_FIELDS = ("manifests", "experts", "weights", "reduced_rates")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The options of `coat build-shards`; `recipe.json` keeps them, so that a damaged shard can be built again."""

    manifests: tuple[str, ...]
    store: str
    experts: tuple[str, ...]  # name@fingerprint, whole
    weights: tuple[float, ...] = ()  # by manifest; (): all 1. 0.5: half of its rows; 2: each of them twice
    layout: Layout = "joint"
    audio: AudioForm = "flac"
    sample_rate: int = SAMPLE_RATE  # Hz, of FLAC
    shard_size: int = SHARD_BYTES
    missing: Missing = "fail"
    seed: int | None = 0  # None: the manifests' order
    filter: str | None = None
    max_seconds: float | None = None  # longer utterances are cut
    reductions: Mapping[str, str] = field(default_factory=dict)  # digest by expert; in whole they are in index.json
    reduced_rates: tuple[float, ...] = ()  # Hz of theirs: long audio is cut where a frame begins
    version: int = VERSION

    def __post_init__(self) -> None:
        for option, kinds in (("missing", Missing), ("layout", Layout), ("audio", AudioForm)):
            if getattr(self, option) not in get_args(kinds):
                raise InputError(f"--{option} {getattr(self, option)}: expected one of {', '.join(get_args(kinds))}")
        if self.weights and (len(self.weights) != len(self.manifests) or min(self.weights) <= 0):
            raise InputError(
                f"--weights: {len(self.weights)} for {len(self.manifests)} manifests; expected one above 0 for each"
            )
        if self.max_seconds is not None and self.max_seconds < 1:
            raise InputError(f"--max-seconds {self.max_seconds}: expected at least 1 s")
        if self.shard_size < 1 or self.sample_rate < 1000:
            raise InputError("--shard-size and --sample-rate: expected a size in bytes and a rate in Hz")

    @property
    def digest(self) -> str:
        return xxhash.xxh3_64_hexdigest(storage.to_json(self.to_dict()))

    @property
    def has_paths(self) -> bool:
        """Whether the tars have paths in place of audio, so that their bytes depend on the paths."""
        return self.audio == "none"

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        lists = {k: list(data[k]) for k in LIST_FIELDS}
        return {**data, **lists, "reductions": dict(self.reductions)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str) -> "Recipe":
        try:
            lists = {k: tuple(data[k]) for k in LIST_FIELDS}
            return cls(**{**data, **lists})
        except (TypeError, KeyError) as e:
            raise InputError(f"{source}: not a recipe of shards ({e})") from e

    @classmethod
    def read(cls, out: str) -> "Recipe":
        url = storage.join(out, RECIPE_NAME)
        try:
            return cls.from_dict(storage.read_json(url), url)
        except FileNotFoundError as e:
            raise InputError(f"{url}: no such file; without it a shard cannot be built again") from e

    def write(self, out: str) -> None:
        storage.write_bytes(storage.join(out, RECIPE_NAME), storage.to_json(self.to_dict()))
