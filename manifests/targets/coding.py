"""Frames to reduced members, and back.

    members = encode_frames(frames_ND, reduction)      # by suffix: "" the values, "scale", "index", "covered"
    frames_MD = decode_frames(members, reduction)      # float32, at the reduced rate

Numpy alone: whoever reads a shard needs neither the pipeline nor the expert.

N frames as extracted, M at the reduced rate, D dim, C components, K kept probabilities.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.targets.frame_rate import EPSILON
from coat.manifests.targets.reduction import LARGEST_STEP, Reduction

VALUES, SCALE, INDEX, COVERED = "", "scale", "index", "covered"  # suffixes of a target's members


def encode_frames(frames_ND: NDArray[np.floating], reduction: Reduction) -> dict[str, NDArray[Any]]:
    """Members by suffix. Frames must be finite, as the pipeline's are."""
    frames_MD = frames_ND.astype(np.float64)
    members: dict[str, NDArray[Any]] = {}
    if reduction.rate_hz is not None:
        rate = reduction.rate
        downsample = rate.downsample_pitch if reduction.kind == "pitch" else rate.downsample
        covered_M = rate.coverage(len(frames_MD))
        frames_MD = downsample(frames_MD)
        if covered_M.min(initial=1.0) < 1 - EPSILON:
            members[COVERED] = covered_M.astype("<f4")
    values_MC = frames_MD
    if reduction.basis:
        values_MC = reduction.basis.apply(frames_MD)
    if reduction.topk:
        index_MK = np.argsort(-frames_MD, axis=1, kind="stable")[:, : reduction.topk]
        values_MC = np.take_along_axis(frames_MD, index_MK, axis=1)
        members[INDEX] = index_MK.astype(reduction.index_dtype)
    if reduction.dtype not in LARGEST_STEP:
        largest = float(np.finfo(reduction.dtype).max)
        return {VALUES: np.clip(values_MC, -largest, largest).astype(reduction.dtype), **members}
    if reduction.fixed_steps:
        offset, scale = reduction.fixed_steps
    else:
        members[SCALE] = (np.abs(values_MC).max(axis=1, initial=0.0) / LARGEST_STEP["int8"]).astype("<f4")
        offset, scale = np.float32(0.0), members[SCALE][:, None]
    steps_MC = np.divide(values_MC - offset, scale, out=np.zeros_like(values_MC), where=scale > 0)
    largest = LARGEST_STEP[reduction.dtype]
    steps_MC = np.clip(np.rint(steps_MC), -largest, largest).astype(np.int8)
    members[VALUES] = pack_int4(steps_MC) if reduction.dtype == "int4" else steps_MC
    return members


def decode_frames(members: Mapping[str, NDArray[Any]], reduction: Reduction) -> NDArray[np.float32]:
    """`[M, D]` at the reduced rate. ValueError where the members are not of such a reduction."""
    check_members(members, reduction)
    stored = members[VALUES]
    values_MC = (unpack_int4(stored, reduction.width) if reduction.dtype == "int4" else stored).astype(np.float32)
    if reduction.fixed_steps:
        offset_C, scale_C = reduction.fixed_steps
        values_MC = values_MC * scale_C + offset_C
    elif reduction.dtype == "int8":
        values_MC *= members[SCALE][:, None]
    if reduction.topk:
        return scatter_topk(values_MC, members[INDEX].astype(np.int64), reduction)
    return reduction.basis.invert(values_MC).astype(np.float32) if reduction.basis else values_MC


def pack_int4(steps_MC: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two steps, of -7 to 7, a byte: the first in the low half. An odd last one is beside a zero."""
    halves_MC = np.pad(steps_MC + 8, ((0, 0), (0, steps_MC.shape[1] % 2)), constant_values=8).astype(np.uint8)
    return halves_MC[:, ::2] | np.left_shift(halves_MC[:, 1::2], 4, dtype=np.uint8)


def unpack_int4(bytes_MB: NDArray[np.uint8], width: int) -> NDArray[np.int8]:
    halves = np.stack([bytes_MB & 15, bytes_MB >> 4], axis=2).reshape(len(bytes_MB), 2 * bytes_MB.shape[1])
    return halves[:, :width].astype(np.int8) - 8


def check_members(members: Mapping[str, NDArray[Any]], reduction: Reduction) -> None:
    values = members.get(VALUES)
    frames = 0 if values is None or values.ndim != 2 else len(values)
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        VALUES: (reduction.stored_dtype, (frames, reduction.stored_width))
    }
    if reduction.dtype == "int8" and reduction.scaling == "frame":
        expected[SCALE] = ("float32", (frames,))
    if reduction.topk:
        expected[INDEX] = (reduction.index_dtype, (frames, reduction.topk))
    if COVERED in members:
        expected[COVERED] = ("float32", (frames,))
    strange = sorted(set(members) - set(expected))
    if strange:
        raise ValueError(f"a member {strange[0]}, which such a reduction does not have")
    for suffix, (dtype, shape) in expected.items():
        found = members.get(suffix)
        if found is None or found.dtype != np.dtype(dtype) or found.shape != shape:
            actual = "missing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise ValueError(f"member {suffix or 'values'} is {actual}; expected {dtype} {list(shape)}")
    if reduction.topk and frames and members[INDEX].max() >= reduction.dim:
        raise ValueError(f"index {members[INDEX].max()} of {reduction.dim} dimensions")


def scatter_topk(
    kept_MK: NDArray[np.float32], index_MK: NDArray[np.int64], reduction: Reduction
) -> NDArray[np.float32]:
    """What was not kept is zero; of a distribution, the rest of the sum in equal parts."""
    frames_MD = np.zeros((len(kept_MK), reduction.dim), np.float32)
    if reduction.kind == "distribution" and reduction.dim > kept_MK.shape[1]:
        rest_M = np.clip(1.0 - kept_MK.sum(axis=1), 0.0, None) / (reduction.dim - kept_MK.shape[1])
        frames_MD += rest_M[:, None]
    np.put_along_axis(frames_MD, index_MK, kept_MK, axis=1)
    return frames_MD
