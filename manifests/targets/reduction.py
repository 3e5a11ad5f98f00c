"""What was done to targets to make them small, as it stands in a shard's index (`coding.py` does it).

In this order: a lower frame rate, then principal components (for hidden states) or the k largest probabilities (for
events), then a smaller dtype.

M frames at the reduced rate, D dim, C components.
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
from coat.manifests.targets.frame_rate import RateReduction
from coat.manifests.targets.spec import Kind, TargetSpec

Dtype = Literal["float32", "float16", "int8", "int4"]
Scaling = Literal["frame", "dimension"]
LARGEST_STEP = {"int8": 127, "int4": 7}  # steps to both sides
TOPK_KINDS = ("probabilities", "distribution")


@dataclass(frozen=True)
class ConstantArray:
    """A constant float32 array as bytes, so that what holds it can be compared, hashed and put into JSON."""

    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: Any) -> "ConstantArray":
        array = np.ascontiguousarray(array, "<f4")
        return cls(array.shape, array.tobytes())

    @cached_property
    def array(self) -> NDArray[np.float32]:
        return np.frombuffer(self.data, "<f4").reshape(self.shape)

    def to_dict(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "float32": base64.b64encode(self.data).decode()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ConstantArray":
        """ValueError where the bytes are not as many as the shape says."""
        found = cls(tuple(data["shape"]), base64.b64decode(data["float32"], validate=True))
        if len(found.data) != 4 * int(np.prod(found.shape)):
            raise ValueError(f"{len(found.data)} bytes for float32 {list(found.shape)}")
        return found


@dataclass(frozen=True)
class PrincipalBasis:
    """Principal components: coordinates are `(frames - mean) @ axes.T / size`, with `size` 1 where not whitened."""

    mean_D: ConstantArray
    axes_CD: ConstantArray  # orthonormal rows
    size_C: ConstantArray  # standard deviation of a coordinate, or ones

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
    basis: PrincipalBasis | None = None
    topk: int | None = None  # probabilities that are kept of a frame
    dtype: Dtype = "float32"
    scaling: Scaling = "frame"  # of int8; int4 is by dimension
    offset_C: ConstantArray | None = None  # of integers by dimension: values are `offset + scale * integer`
    scale_C: ConstantArray | None = None

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
        by_dimension = self.dtype in LARGEST_STEP and self.scaling == "dimension"
        if by_dimension != (self.scale_C is not None) or by_dimension != (self.offset_C is not None):
            raise InputError("integers by dimension, and nothing else, have a scale and an offset per dimension")
        if by_dimension and self.topk is not None:
            raise InputError("the largest probabilities are of other dimensions in each frame: scale them by frame")

    @classmethod
    def of(cls, spec: TargetSpec, **settings: Any) -> "Reduction":
        """Of targets with this spec; `settings` are the fields from `rate_hz` on."""
        base = {"kind": spec.kind, "dim": spec.dim, "source_hz": spec.rate_hz, "source_start_s": spec.start_s}
        return cls(**{**base, "dtype": spec.dtype, **settings})

    @property
    def rate(self) -> RateReduction:
        return RateReduction(self.source_hz, self.source_start_s, self.rate_hz or self.source_hz)

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
    def stored_width(self) -> int:
        """Columns of the values' array: two int4 are a byte."""
        return (self.width + 1) // 2 if self.dtype == "int4" else self.width

    @property
    def stored_dtype(self) -> str:
        return "uint8" if self.dtype == "int4" else self.dtype

    @property
    def index_dtype(self) -> str:
        """Of the dimensions that were kept."""
        return "uint8" if self.dim <= 2**8 else "uint16" if self.dim <= 2**16 else "uint32"

    @property
    def bytes_per_frame(self) -> int:
        by_frame = self.dtype == "int8" and self.scaling == "frame"
        kept = self.stored_width * np.dtype(self.stored_dtype).itemsize + 4 * by_frame
        return kept + (self.topk or 0) * np.dtype(self.index_dtype).itemsize

    @property
    def bytes_per_second(self) -> float:
        return self.bytes_per_frame * self.rate.rate_hz

    @property
    def digest(self) -> str:
        """16 hex digits, equal exactly where the same is done."""
        return xxhash.xxh3_64_hexdigest(json.dumps(self.to_dict(), sort_keys=True).encode())

    def decoded_spec(self, spec: TargetSpec) -> TargetSpec:
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
        return ", ".join([*words, f"{self.dtype} by {self.scaling}" if self.dtype in LARGEST_STEP else self.dtype])

    def to_dict(self) -> dict[str, Any]:
        """Of JSON values."""
        numbers = {"offset": self.offset_C, "scale": self.scale_C}
        data: dict[str, Any] = {name: getattr(self, name) for name in PLAIN_FIELDS}
        data |= {name: value.to_dict() if value else None for name, value in numbers.items()}
        b = self.basis
        data["basis"] = b and {"mean": b.mean_D.to_dict(), "axes": b.axes_CD.to_dict(), "size": b.size_C.to_dict()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str = "reduction") -> "Reduction":
        """InputError names `source` where the fields are not those of a reduction."""
        try:
            numbers = {k: ConstantArray.from_dict(data[k]) if data[k] else None for k in ("offset", "scale")}
            b = {k: ConstantArray.from_dict(v) for k, v in (data["basis"] or {}).items()}
            basis = PrincipalBasis(b["mean"], b["axes"], b["size"]) if b else None
            plain = {name: data[name] for name in PLAIN_FIELDS}
            return cls(**plain, basis=basis, offset_C=numbers["offset"], scale_C=numbers["scale"])
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise InputError(f"{source}: not a reduction ({e!r})") from e


PLAIN_FIELDS = ("kind", "dim", "source_hz", "source_start_s", "rate_hz", "topk", "dtype", "scaling")
