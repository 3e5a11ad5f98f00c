"""One expert's targets as members of a sample: `<expert>.npy`, and for reduced ones what decoding it needs beside it.

N frames, M frames at the rate of the shards, D dim.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.targets.arrays import BrokenArray, from_npy, to_npy
from coat.manifests.targets.coding import COVERED, INDEX, SCALE, VALUES, decode_frames, encode_frames
from coat.manifests.targets.reduction import Reduction
from coat.manifests.targets.spec import TargetSpec

MEMBER_PARTS = (VALUES, SCALE, INDEX, COVERED)
LEAST_COVERED = 0.5  # a frame that stands for less of its span is masked


def suffix_of(expert: str, part: str) -> str:
    return f"{expert}.{part}.npy" if part else f"{expert}.npy"


def experts_with_targets(members: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of `known` whose values are among the members."""
    there = set(members)
    return [name for name in known if suffix_of(name, VALUES) in there]


def to_members(expert: str, frames_ND: NDArray[Any], reduction: Reduction | None) -> tuple[dict[str, bytes], int]:
    """By suffix, and the frames that they hold."""
    parts = encode_frames(frames_ND, reduction) if reduction else {VALUES: frames_ND}
    return {suffix_of(expert, part): to_npy(array) for part, array in parts.items()}, len(parts[VALUES])


def from_members(
    expert: str, members: Mapping[str, bytes], spec: TargetSpec, reduction: Reduction | None
) -> NDArray[np.floating[Any]]:
    """`[M, D]`: as extracted, or decoded to float32, frames of less than half a span being NaN, which masks them.

    ValueError where a member is missing or not what the spec and the reduction say; BrokenArray where it is no array.
    """
    parts = {
        part: read_array(suffix_of(expert, part), members)
        for part in MEMBER_PARTS
        if suffix_of(expert, part) in members
    }
    if reduction is None:
        frames_ND = parts.get(VALUES)
        right = f"{spec.dtype} [frames, {spec.dim}]"
        if frames_ND is None or len(parts) > 1:
            raise ValueError(f"members {sorted(parts)} of {expert}; expected its values alone")
        if frames_ND.ndim != 2 or frames_ND.shape[1] != spec.dim or frames_ND.dtype != np.dtype(spec.dtype):
            raise ValueError(f"it is {frames_ND.dtype} {list(frames_ND.shape)}; its spec says {right}")
        return frames_ND
    frames_MD = decode_frames(parts, reduction)
    if COVERED in parts:
        frames_MD[parts[COVERED] < LEAST_COVERED] = np.nan
    return frames_MD


def read_array(suffix: str, members: Mapping[str, bytes]) -> NDArray[Any]:
    try:
        return from_npy(members[suffix])
    except BrokenArray as e:
        raise BrokenArray(f".{suffix}: {e}") from e
