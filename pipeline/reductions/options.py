"""The options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args

from coat.manifests.errors import InputError
from coat.manifests.targets.reduction import LARGEST_STEP, TOPK_KINDS, Dtype, Scaling
from coat.manifests.targets.spec import TargetSpec

Value = TypeVar("Value")


ALL = ""


MIXED = ("pitch", "scalars")  # kinds whose dimensions have units of their own


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """By expert; ALL stands for those that are not named, as far as it suits them."""

    rate: Mapping[str, float]
    pca: Mapping[str, int]
    whiten: Sequence[str]
    dtype: Mapping[str, Dtype]
    scale: Mapping[str, Scaling]
    topk: Mapping[str, int]

    @classmethod
    def parse(
        cls,
        rate: str | None = None,
        pca: str | None = None,
        whiten: str | None = None,
        dtype: str | None = None,
        scale: str | None = None,
        topk: str | None = None,
    ) -> "Wishes":
        """InputError names the option whose value is none."""
        return cls(
            rate=by_expert("--rate", rate, positive(float), "frames a second, as 12.5 or whisper=12.5"),
            pca=by_expert("--pca", pca, positive(int), "components, as 128 or whisper=128"),
            whiten=tuple(part.strip() for part in whiten.split(",")) if whiten else (),
            dtype=by_expert("--dtype", dtype, one_of(Dtype), f"one of {', '.join(get_args(Dtype))}, or whisper=int8"),
            scale=by_expert("--scale", scale, one_of(Scaling), "frame or dimension, or whisper=dimension"),
            topk=by_expert("--topk", topk, positive(int), "probabilities of a frame, as 10 or yamnet=10"),
        )

    def check(self, experts: Sequence[str]) -> None:
        """InputError where one is named that is not built."""
        for field in fields(self):
            strange = [name for name in getattr(self, field.name) if name not in (ALL, *experts)]
            if strange:
                raise InputError(f"--{field.name} {strange[0]}: not among the experts of these shards: {list(experts)}")
        unsure = [name for name in self.whiten if name not in self.pca and ALL not in self.pca]
        if unsure:
            raise InputError(f"--whiten {unsure[0]}: it is of principal components; give --pca {unsure[0]}=DIM too")

    def of(self, name: str, spec: TargetSpec) -> dict[str, Any]:
        """Arguments of `fit`; {} leaves the targets as they are."""
        suits: dict[str, Callable[[Any], bool]] = {
            "rate": lambda hz: hz < spec.rate_hz,
            "pca": lambda n: spec.kind == "representation" and n < spec.dim,
            "topk": lambda n: spec.kind in TOPK_KINDS and n < spec.dim,
            "dtype": lambda dtype: dtype not in LARGEST_STEP or spec.kind not in MIXED,
            "scale": lambda scale: True,
        }
        asked = {}
        for option, suit in suits.items():
            wanted: Mapping[str, Any] = getattr(self, option)
            if name in wanted:
                asked[option] = wanted[name]
            elif ALL in wanted and suit(wanted[ALL]):
                asked[option] = wanted[ALL]
        asked.setdefault("dtype", spec.dtype)
        by_dimension = spec.kind in MIXED or asked["dtype"] == "int4"
        scale = asked.pop("scale", "dimension" if by_dimension else "frame")
        if asked == {"dtype": spec.dtype}:
            return {}
        if "rate" in asked:
            asked["rate_hz"] = asked.pop("rate")
        return {**asked, "whiten": name in self.whiten, "scaling": scale if asked["dtype"] in LARGEST_STEP else "frame"}


def by_expert(option: str, text: str | None, read: Callable[[str], Value], right: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for part in text.split(",") if text else []:
        name, equals, value = part.strip().rpartition("=")
        key = name.strip() if equals else ALL
        try:
            if key in found or (equals and not key):
                raise ValueError(part)
            found[key] = read(value.strip())
        except ValueError as e:
            raise InputError(f"{option} {text}: expected {right}; several with commas") from e
    return found


def positive(kind: Callable[[str], Value]) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        value: Any = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    return read


def one_of(literal: Any) -> Callable[[str], Any]:
    def read(text: str) -> str:
        if text not in get_args(literal):
            raise ValueError(text)
        return text

    return read
