"""The options `--rate --pca --whiten --dtype --scale --topk`: for all experts that they suit, or for some.

A value is for all experts that it suits (`12.5`, `int8`), or for one (`whisper=12.5`); with commas, both.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args

from coat.manifests.errors import InputError
from coat.manifests.targets.reduction import LARGEST_STEP, TOPK_KINDS, Dtype, Scaling
from coat.manifests.targets.spec import TargetSpec

T = TypeVar("T")
ALL_EXPERTS = ""  # the name under which a value for all stands
MIXED_UNITS = ("pitch", "scalars")  # kinds whose dimensions have units of their own


@dataclass(frozen=True, kw_only=True)
class ReductionOptions:
    """Values by expert; what stands for ALL_EXPERTS is for those that are not named, as far as it suits them."""

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
    ) -> "ReductionOptions":
        """InputError names the option whose value cannot be read."""
        return cls(
            rate=parse_by_expert("--rate", rate, positive_number(float), "frames a second, as 12.5 or whisper=12.5"),
            pca=parse_by_expert("--pca", pca, positive_number(int), "components, as 128 or whisper=128"),
            whiten=tuple(part.strip() for part in whiten.split(",")) if whiten else (),
            dtype=parse_by_expert(
                "--dtype", dtype, one_of(Dtype), f"one of {', '.join(get_args(Dtype))}, or whisper=int8"
            ),
            scale=parse_by_expert("--scale", scale, one_of(Scaling), "frame or dimension, or whisper=dimension"),
            topk=parse_by_expert("--topk", topk, positive_number(int), "probabilities of a frame, as 10 or yamnet=10"),
        )

    def check_names(self, experts: Sequence[str]) -> None:
        """InputError where one is named that is not built."""
        for field in fields(self):
            unknown = [name for name in getattr(self, field.name) if name not in (ALL_EXPERTS, *experts)]
            if unknown:
                raise InputError(f"--{field.name} {unknown[0]}: not among the experts of these shards: {list(experts)}")
        without_pca = [name for name in self.whiten if name not in self.pca and ALL_EXPERTS not in self.pca]
        if without_pca:
            raise InputError(
                f"--whiten {without_pca[0]}: it is of principal components; give --pca {without_pca[0]}=DIM too"
            )

    def arguments_for(self, name: str, spec: TargetSpec) -> dict[str, Any]:
        """Arguments of `fit_reduction`; {} leaves the targets as they are."""
        suits: dict[str, Callable[[Any], bool]] = {
            "rate": lambda hz: hz < spec.rate_hz,
            "pca": lambda n: spec.kind == "representation" and n < spec.dim,
            "topk": lambda n: spec.kind in TOPK_KINDS and n < spec.dim,
            "dtype": lambda dtype: dtype not in LARGEST_STEP or spec.kind not in MIXED_UNITS,
            "scale": lambda scale: True,
        }
        arguments = {}
        for option, is_suited in suits.items():
            values: Mapping[str, Any] = getattr(self, option)
            if name in values:
                arguments[option] = values[name]
            elif ALL_EXPERTS in values and is_suited(values[ALL_EXPERTS]):
                arguments[option] = values[ALL_EXPERTS]
        arguments.setdefault("dtype", spec.dtype)
        by_dimension = spec.kind in MIXED_UNITS or arguments["dtype"] == "int4"
        scale = arguments.pop("scale", "dimension" if by_dimension else "frame")
        if arguments == {"dtype": spec.dtype}:
            return {}
        if "rate" in arguments:
            arguments["rate_hz"] = arguments.pop("rate")
        return {
            **arguments,
            "whiten": name in self.whiten,
            "scaling": scale if arguments["dtype"] in LARGEST_STEP else "frame",
        }


def parse_by_expert(option: str, text: str | None, read: Callable[[str], T], expected: str) -> dict[str, T]:
    values: dict[str, T] = {}
    for part in text.split(",") if text else []:
        name, equals, value = part.strip().rpartition("=")
        key = name.strip() if equals else ALL_EXPERTS
        try:
            if key in values or (equals and not key):
                raise ValueError(part)
            values[key] = read(value.strip())
        except ValueError as e:
            raise InputError(f"{option} {text}: expected {expected}; several with commas") from e
    return values


def positive_number(number_type: Callable[[str], T]) -> Callable[[str], T]:
    def read(text: str) -> T:
        value: Any = number_type(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    return read


def one_of(literal_type: Any) -> Callable[[str], Any]:
    def read(text: str) -> str:
        if text not in get_args(literal_type):
            raise ValueError(text)
        return text

    return read
