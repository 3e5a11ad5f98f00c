"""What is found, as the table, the page and `--json` show it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from coat.trainer.fidelity.measures.measure import Part

RUN, MEAN, FLOOR = "run", "training_mean", "without_distillation"
SUBJECTS = {RUN: "run", MEAN: "training mean", FLOOR: "without distillation"}  # as people read them


@dataclass(frozen=True)
class Figure:
    value: float
    interval: tuple[float, float] | None  # 95 %; None where no draw has a value, and of the training mean


Row = Mapping[str, Mapping[str, Figure]]  # by subject and measure


@dataclass(frozen=True)
class GroupFigures:
    """Of one corpus."""

    name: str
    clips: int
    frames: int
    figures: Row


@dataclass(frozen=True, kw_only=True)
class ExpertFidelity:
    """Of one expert. `clips` are those that figures are of; `clips_seen` are more where a sample was kept."""

    expert: str
    family: str
    kind: str
    rate_hz: float
    reduction: str  # what was done to the targets, in a few words; "" where nothing
    kept_variance: float | None  # of what was extracted, by the reduced targets, as the shards' index has it
    clips: int
    clips_seen: int
    clips_apart: int  # that one model heard, and the other could not
    frames: int
    draws: int
    figures: Row
    over_floor: Mapping[str, Figure]  # run less heads without distillation, on the same draws
    groups: tuple[GroupFigures, ...]
    parts: Mapping[str, tuple[Part, ...]]  # by subject: classes or channels
    errors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # of pitch, see PitchMeasure.errors

    @property
    def names(self) -> list[str]:
        """Of the measures."""
        return list(self.figures[RUN])

    @property
    def without_figures(self) -> dict[str, list[str]]:
        """Names of classes or channels that are in no mean, by why."""
        found: dict[str, list[str]] = {}
        for part in self.parts[RUN]:
            if part.problem:
                found.setdefault(part.problem, []).append(part.name)
        return found


@dataclass(frozen=True, kw_only=True)
class FidelityResults:
    run: str
    step: int | None
    floor_run: str | None
    shards: tuple[str, ...]
    present: float  # probability from which on a class counts as there
    by: tuple[str, ...]  # keys of the manifest: the first that a row has names its corpus
    clips: int  # that the run heard
    skipped: Mapping[str, int]  # by reason
    experts: tuple[ExpertFidelity, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what is not a number there is null."""
        data = finite(asdict(self))
        for one, expert in zip(data["experts"], self.experts, strict=True):
            one["without_figures"] = expert.without_figures
        return data


def finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(v) for key, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value
