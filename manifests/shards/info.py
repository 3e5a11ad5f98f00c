"""What an index says of one tar, and of one expert's targets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.errors import InputError
from coat.manifests.targets.members import from_members
from coat.manifests.targets.reduction import Reduction
from coat.manifests.targets.spec import TargetSpec


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
    """One expert's targets in the set. `mean` and `std` have a value per dimension, for standardising.

    `spec` is of the targets as a reader gets them. Where they were reduced, `reduction` says how, `extracted` is the
    fingerprint of what they were made of, and `fidelity` what was measured of it (pipeline/reductions/fidelity.py).
    """

    spec: TargetSpec
    samples: int
    frames: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reduction: Reduction | None = None
    extracted: str = ""
    fidelity: Mapping[str, Any] | None = None

    @property
    def bytes_per_frame(self) -> float:
        """As stored, without headers."""
        if self.reduction:
            return self.reduction.bytes_per_frame
        return self.spec.bytes_per_second() / self.spec.rate_hz

    def decode(self, members: Mapping[str, bytes]) -> NDArray[np.floating[Any]]:
        """`[frames, dim]` of a sample's members. ValueError as `from_members`."""
        return from_members(self.spec.expert, members, self.spec, self.reduction)

    def to_dict(self) -> dict[str, Any]:
        data = {"spec": self.spec.to_dict(), "fingerprint": self.spec.fingerprint, "samples": self.samples}
        data |= {"frames": self.frames, "mean": list(self.mean), "std": list(self.std)}
        if self.reduction:
            data |= {"reduction": self.reduction.to_dict(), "extracted": self.extracted}
            data |= {"fidelity": dict(self.fidelity or {})}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str) -> "ExpertInfo":
        return cls(
            spec=TargetSpec.from_dict(data["spec"], source),
            samples=data["samples"],
            frames=data["frames"],
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            reduction=Reduction.from_dict(data["reduction"], source) if "reduction" in data else None,
            extracted=data.get("extracted", ""),
            fidelity=data.get("fidelity"),
        )


def shard_infos(data: list[dict[str, Any]]) -> tuple[ShardInfo, ...]:
    return tuple(ShardInfo(**{**s, "name": checked_shard_name(s["name"])}) for s in data)


def checked_shard_name(name: str) -> str:
    """A shard's name must be a file of the set's own folder."""
    if "/" in name or "\\" in name or name.startswith(".") or not name.endswith(".tar"):
        raise InputError(f"{name!r}: not a shard name; an index may only name tar files beside it")
    return name
