"""Targets made small: what was done to them, as it stands in a shard's index, and both ways of doing it.

    members = encode(frames_ND, reduction)      # by suffix: "" the values, "scale", "index", "covered"
    frames_MD = decode(members, reduction)      # float32, at the reduced rate

In this order: a lower frame rate, then principal components (for hidden states) or the k largest probabilities (for
events), then a smaller dtype. Numpy alone: whoever reads a shard needs neither the pipeline nor the expert.

N frames as extracted, M at the reduced rate, D dim, C components, K kept probabilities.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.manifests.errors import InputError
from coat.manifests.targets.rates import EPSILON, Rate
from coat.manifests.targets.spec import Kind, TargetSpec

Dtype = Literal["float32", "float16", "int8", "int4"]
Scaling = Literal["frame", "dimension"]
VALUES, SCALE, INDEX, COVERED = "", "scale", "index", "covered"  # suffixes of a target's members
LARGEST = {"int8": 127, "int4": 7}  # steps to both sides
TOPK_KINDS = ("probabilities", "distribution")


@dataclass(frozen=True)
class Numbers:
    """A constant float32 array as bytes, so that what holds it can be compared, hashed and put into JSON."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: Any) -> "Numbers":
        array = np.ascontiguousarray(array, "<f4")
        return cls(array.shape, array.tobytes())

    @cached_property
    def array(self) -> NDArray[np.float32]:
        return np.frombuffer(self.data, "<f4").reshape(self.shape)

    def to_dict(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "float32": base64.b64encode(self.data).decode()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Numbers":
        """ValueError where the bytes are not as many as the shape says."""
        found = cls(tuple(data["shape"]), base64.b64decode(data["float32"], validate=True))
        if len(found.data) != 4 * int(np.prod(found.shape)):
            raise ValueError(f"{len(found.data)} bytes for float32 {list(found.shape)}")
        return found


@dataclass(frozen=True)
class Basis:
    """Principal components: coordinates are `(frames - mean) @ axes.T / size`, with `size` 1 where not whitened."""

    mean_D: Numbers
    axes_CD: Numbers  # orthonormal rows
    size_C: Numbers  # standard deviation of a coordinate, or ones

    @property
    def components(self) -> int:
        return self.axes_CD.shape[0]

    def apply(self, frames_MD: NDArray[np.floating]) -> NDArray[np.floating]:
        return (frames_MD - self.mean_D.array) @ self.axes_CD.array.T / self.size_C.array

    def invert(self, coordinates_MC: NDArray[np.floating]) -> NDArray[np.floating]:
        return (coordinates_MC * self.size_C.array) @ self.axes_CD.array + self.mean_D.array


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What was done to one expert's targets. InputError where it does not go with the kind of the targets."""

    kind: Kind
    dim: int  # as extracted, and as decoded
    source_hz: float
    source_start_s: float
    rate_hz: float | None = None  # None: as extracted
    basis: Basis | None = None
    topk: int | None = None  # probabilities that are kept of a frame
    dtype: Dtype = "float32"
    scaling: Scaling = "frame"  # of int8; int4 is by dimension
    offset_C: Numbers | None = None  # of integers by dimension: values are `offset + scale * integer`
    scale_C: Numbers | None = None

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Dtype) or self.scaling not in get_args(Scaling):
            raise InputError(f"dtype {self.dtype!r} with scales by {self.scaling!r}: expected {get_args(Dtype)}")
        if self.rate_hz is not None and not 0 < self.rate_hz <= self.source_hz:
            raise InputError(f"rate {self.rate_hz} Hz: expected one up to {self.source_hz:g} Hz, which was extracted")
        if self.topk is not None and (self.kind not in TOPK_KINDS or not 0 < self.topk <= self.dim):
            raise InputError(f"topk {self.topk}: it is for events' {self.dim} probabilities, and these are {self.kind}")
        if self.basis is not None and self.kind != "representation":
            raise InputError(
                f"principal components are of representations; these are {self.kind}, and keep their meaning"
            )
        if self.basis is not None and self.basis.axes_CD.shape != (self.basis.components, self.dim):
            raise InputError(f"axes {list(self.basis.axes_CD.shape)} for {self.dim} dimensions")
        if self.dtype == "int4" and self.scaling != "dimension":
            raise InputError("int4 has too few steps for a scale by frame; use --scale dimension")
        by_dimension = self.dtype in LARGEST and self.scaling == "dimension"
        if by_dimension != (self.scale_C is not None) or by_dimension != (self.offset_C is not None):
            raise InputError("integers by dimension, and nothing else, have a scale and an offset per dimension")
        if by_dimension and self.topk is not None:
            raise InputError("the largest probabilities are of other dimensions in each frame: scale them by frame")

    @classmethod
    def of(cls, spec: TargetSpec, **how: Any) -> "Reduction":
        """Of targets with this spec; `how` are the fields from `rate_hz` on."""
        base = {"kind": spec.kind, "dim": spec.dim, "source_hz": spec.rate_hz, "source_start_s": spec.start_s}
        return cls(**{**base, "dtype": spec.dtype, **how})

    @property
    def rate(self) -> Rate:
        return Rate(self.source_hz, self.source_start_s, self.rate_hz or self.source_hz)

    @property
    def fixed_steps(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Offset and scale per dimension; None where a frame has a scale of its own, or there are none."""
        return (self.offset_C.array, self.scale_C.array) if self.offset_C and self.scale_C else None

    @property
    def is_fitted(self) -> bool:
        """Whether numbers of the target set went into it."""
        return self.basis is not None or self.scale_C is not None

    @property
    def width(self) -> int:
        """Values of a frame, as stored."""
        return self.topk or (self.basis.components if self.basis else self.dim)

    @property
    def bytes_per_frame(self) -> int:
        by_frame = self.dtype == "int8" and self.scaling == "frame"
        kept = stored_width(self) * np.dtype(stored_dtype(self)).itemsize + 4 * by_frame
        return kept + (self.topk or 0) * np.dtype(index_dtype(self.dim)).itemsize

    @property
    def bytes_per_second(self) -> float:
        return self.bytes_per_frame * self.rate.rate_hz

    @property
    def digest(self) -> str:
        """16 hex digits, equal exactly where the same is done."""
        return xxhash.xxh3_64_hexdigest(json.dumps(self.to_dict(), sort_keys=True).encode())

    def of_spec(self, spec: TargetSpec) -> TargetSpec:
        """The spec of what decoding gives, of targets that were extracted with `spec`."""
        settings = {**spec.settings, "reduction": self.digest}
        return replace(spec, rate_hz=self.rate.rate_hz, start_s=self.rate.start_s, dtype="float32", settings=settings)

    def summary(self) -> str:
        """In a few words, for people."""
        words = [f"{self.rate.rate_hz:g} Hz"] if self.rate_hz is not None else []
        if self.basis:
            whitened = ", whitened" if any(self.basis.size_C.array != 1) else ""
            words.append(f"{self.basis.components} of {self.dim} components{whitened}")
        words += [f"largest {self.topk}"] if self.topk else []
        return ", ".join([*words, f"{self.dtype} by {self.scaling}" if self.dtype in LARGEST else self.dtype])

    def to_dict(self) -> dict[str, Any]:
        """Of JSON values."""
        numbers = {"offset": self.offset_C, "scale": self.scale_C}
        data: dict[str, Any] = {name: getattr(self, name) for name in PLAIN}
        data |= {name: value.to_dict() if value else None for name, value in numbers.items()}
        b = self.basis
        data["basis"] = b and {"mean": b.mean_D.to_dict(), "axes": b.axes_CD.to_dict(), "size": b.size_C.to_dict()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "reduction") -> "Reduction":
        """InputError names `source` where the fields are not those of a reduction."""
        try:
            numbers = {k: Numbers.from_dict(data[k]) if data[k] else None for k in ("offset", "scale")}
            b = {k: Numbers.from_dict(v) for k, v in (data["basis"] or {}).items()}
            basis = Basis(b["mean"], b["axes"], b["size"]) if b else None
            plain = {name: data[name] for name in PLAIN}
            return cls(**plain, basis=basis, offset_C=numbers["offset"], scale_C=numbers["scale"])
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise InputError(f"{source}: not a reduction ({e!r})") from e


PLAIN = ("kind", "dim", "source_hz", "source_start_s", "rate_hz", "topk", "dtype", "scaling")


def stored_dtype(how: Reduction) -> str:
    return "uint8" if how.dtype == "int4" else how.dtype


def stored_width(how: Reduction) -> int:
    """Two int4 are a byte."""
    return (how.width + 1) // 2 if how.dtype == "int4" else how.width


def index_dtype(dim: int) -> str:
    return "uint8" if dim <= 2**8 else "uint16" if dim <= 2**16 else "uint32"


def encode(frames_ND: NDArray[np.floating], how: Reduction) -> dict[str, NDArray[Any]]:
    """Members by suffix. Frames must be finite, as the pipeline's are."""
    frames_MD = frames_ND.astype(np.float64)
    members: dict[str, NDArray[Any]] = {}
    if how.rate_hz is not None:
        lower = how.rate.lower_pitch if how.kind == "pitch" else how.rate.lower
        covered_M = how.rate.covered(len(frames_MD))
        frames_MD = lower(frames_MD)
        if covered_M.min(initial=1.0) < 1 - EPSILON:
            members[COVERED] = covered_M.astype("<f4")
    values_MC = frames_MD
    if how.basis:
        values_MC = how.basis.apply(frames_MD)
    if how.topk:
        index_MK = np.argsort(-frames_MD, axis=1, kind="stable")[:, : how.topk]
        values_MC = np.take_along_axis(frames_MD, index_MK, axis=1)
        members[INDEX] = index_MK.astype(index_dtype(how.dim))
    if how.dtype not in LARGEST:
        largest = float(np.finfo(how.dtype).max)
        return {VALUES: np.clip(values_MC, -largest, largest).astype(how.dtype), **members}
    if how.fixed_steps:
        offset, scale = how.fixed_steps
    else:
        members[SCALE] = (np.abs(values_MC).max(axis=1, initial=0.0) / LARGEST["int8"]).astype("<f4")
        offset, scale = np.float32(0.0), members[SCALE][:, None]
    steps_MC = np.divide(values_MC - offset, scale, out=np.zeros_like(values_MC), where=scale > 0)
    largest = LARGEST[how.dtype]
    steps_MC = np.clip(np.rint(steps_MC), -largest, largest).astype(np.int8)
    members[VALUES] = packed(steps_MC) if how.dtype == "int4" else steps_MC
    return members


def decode(members: Mapping[str, NDArray[Any]], how: Reduction) -> NDArray[np.float32]:
    """`[M, D]` at the reduced rate. ValueError where the members are not of such a reduction."""
    check(members, how)
    stored = members[VALUES]
    values_MC = (unpacked(stored, how.width) if how.dtype == "int4" else stored).astype(np.float32)
    if how.fixed_steps:
        offset_C, scale_C = how.fixed_steps
        values_MC = values_MC * scale_C + offset_C
    elif how.dtype == "int8":
        values_MC *= members[SCALE][:, None]
    if how.topk:
        return spread(values_MC, members[INDEX].astype(np.int64), how)
    return how.basis.invert(values_MC).astype(np.float32) if how.basis else values_MC


def packed(steps_MC: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two steps, of -7 to 7, a byte: the first in the low half. An odd last one is beside a zero."""
    halves_MC = np.pad(steps_MC + 8, ((0, 0), (0, steps_MC.shape[1] % 2)), constant_values=8).astype(np.uint8)
    return halves_MC[:, ::2] | np.left_shift(halves_MC[:, 1::2], 4, dtype=np.uint8)


def unpacked(bytes_MB: NDArray[np.uint8], width: int) -> NDArray[np.int8]:
    halves = np.stack([bytes_MB & 15, bytes_MB >> 4], axis=2).reshape(len(bytes_MB), 2 * bytes_MB.shape[1])
    return halves[:, :width].astype(np.int8) - 8


def check(members: Mapping[str, NDArray[Any]], how: Reduction) -> None:
    values = members.get(VALUES)
    frames = 0 if values is None or values.ndim != 2 else len(values)
    expected: dict[str, tuple[str, tuple[int, ...]]] = {VALUES: (stored_dtype(how), (frames, stored_width(how)))}
    if how.dtype == "int8" and how.scaling == "frame":
        expected[SCALE] = ("float32", (frames,))
    if how.topk:
        expected[INDEX] = (index_dtype(how.dim), (frames, how.topk))
    if COVERED in members:
        expected[COVERED] = ("float32", (frames,))
    strange = sorted(set(members) - set(expected))
    if strange:
        raise ValueError(f"a member {strange[0]}, which such a reduction does not have")
    for suffix, (dtype, shape) in expected.items():
        found = members.get(suffix)
        if found is None or found.dtype != np.dtype(dtype) or found.shape != shape:
            is_ = "missing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise ValueError(f"member {suffix or 'values'} is {is_}; expected {dtype} {list(shape)}")
    if how.topk and frames and members[INDEX].max() >= how.dim:
        raise ValueError(f"index {members[INDEX].max()} of {how.dim} dimensions")


def spread(kept_MK: NDArray[np.float32], index_MK: NDArray[np.int64], how: Reduction) -> NDArray[np.float32]:
    """What was not kept is zero; of a distribution, the rest of the sum in equal parts."""
    frames_MD = np.zeros((len(kept_MK), how.dim), np.float32)
    if how.kind == "distribution" and how.dim > kept_MK.shape[1]:
        rest_M = np.clip(1.0 - kept_MK.sum(axis=1), 0.0, None) / (how.dim - kept_MK.shape[1])
        frames_MD += rest_M[:, None]
    np.put_along_axis(frames_MD, index_MK, kept_MK, axis=1)
    return frames_MD
