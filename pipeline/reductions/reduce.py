"""`coat build-shards --rate --pca --whiten --dtype --scale --topk`: how each expert's targets are made smaller.

An option's value is for all experts that it suits (`12.5`, `int8`), or for one (`whisper=12.5`); with commas, both.
The reduction is fitted to the target set's statistics and measured on utterances held out of it before anything is
written. D dim.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args

import numpy as np

from coat.manifests.errors import InputError
from coat.manifests.shards.index import ExpertInfo
from coat.manifests.targets.reduction import LARGEST, TOPK_KINDS, Dtype, Reduction, Scaling
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.reductions.fidelity import Fidelity, fit, held_out, measure
from coat.pipeline.statistics.statistics import moments, statistics
from coat.pipeline.store.target_set import TargetSet

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
            "dtype": lambda dtype: dtype not in LARGEST or spec.kind not in MIXED,
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
        return {**asked, "whiten": name in self.whiten, "scaling": scale if asked["dtype"] in LARGEST else "frame"}


@dataclass(frozen=True)
class Reduced:
    """What is done to one expert's targets, and what is known of the outcome."""

    how: Reduction
    fidelity: Fidelity


def reduce_sets(sets: Mapping[str, TargetSet], wishes: Wishes) -> dict[str, Reduced]:
    """Of those that something is asked for. InputError where it does not go with an expert's kind."""
    wishes.check(list(sets))
    found = {}
    for name, targets in sets.items():
        how = wishes.of(name, targets.spec)
        if not how:
            continue
        sample = held_out(targets)
        try:
            reduction = fit(statistics(targets, covariance="pca" in how), sample, **how)
        except InputError as e:
            raise InputError(f"{name}: {e}") from e
        found[name] = Reduced(reduction, measure(sample, reduction, targets.spec))
    return found


def expert_info(targets: TargetSet, reduced: Reduced | None, samples: int, frames: int) -> ExpertInfo:
    found, spec = moments(targets), targets.spec
    std_D = found.std_D * (np.array(reduced.fidelity.std_ratio_D) if reduced else 1.0)
    return ExpertInfo(
        spec=reduced.how.of_spec(spec) if reduced else spec,
        samples=samples,
        frames=frames,
        mean=tuple(found.mean_D.tolist()),
        std=tuple(std_D.tolist()),
        reduction=reduced.how if reduced else None,
        extracted=spec.fingerprint if reduced else "",
        fidelity=reduced.fidelity.to_dict() if reduced else None,
    )


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
