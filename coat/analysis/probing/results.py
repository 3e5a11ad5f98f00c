"""What is asked of `coat probe`, and what it finds: what the page, the table and the JSON are made of."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coat.analysis.probing.fitting import Classifier
from coat.analysis.probing.moments import LEAST_FOLDS
from coat.analysis.probing.places import PLACES, TIMED
from coat.analysis.probing.scores import Score
from coat.analysis.probing.subject import Subject
from coat.manifests import InputError


@dataclass(frozen=True)
class ProbeSettings:
    shards: str
    layers: str = "all"
    places: Sequence[str] = PLACES
    experts: Sequence[str] | None = None  # None: all of the shards
    labels: Sequence[str] = ()
    frames: bool = False
    folds: int = 5
    folds_by: str | None = None  # a label: clips that share it share a fold
    clips: int | None = None
    batch_size: int = 16
    batch_tokens: int = 16384
    device: str | None = None
    classifier: Classifier = "logistic"  # of words; numbers are by ridge regression

    def __post_init__(self) -> None:
        if unknown := [place for place in self.places if place not in PLACES]:
            raise InputError(f"--positions {unknown[0]}: expected some of {', '.join(PLACES)}")
        if not self.places:
            raise InputError(f"--positions is empty; expected some of {', '.join(PLACES)}")
        if self.folds < LEAST_FOLDS:
            raise InputError(f"--folds {self.folds}: expected {LEAST_FOLDS} or more: the penalty is chosen inside")
        if self.folds_by in self.labels:
            raise InputError(f"--folds-by {self.folds_by}: is a --label, too; no fold would know the others' values")
        if self.frames and not set(self.places) & set(TIMED):
            raise InputError(f"--frames is of {' and '.join(TIMED)} positions; --positions has neither")

    @property
    def by_position(self) -> tuple[str, ...]:
        return tuple(place for place in self.places if self.frames and place in TIMED)


@dataclass(frozen=True)
class TargetFacts:
    """`chance`: the share of the most frequent class."""

    name: str
    metric: str
    columns: int
    clips: int
    classes: tuple[str, ...] = ()
    chance: float | None = None


@dataclass(frozen=True)
class Probes:
    """All of it. `skipped`: by subject, samples by reason; `problems`: what was not probed, by place and target."""

    settings: ProbeSettings
    subjects: Sequence[Subject]
    layers: Sequence[int]  # that each student has
    dims: Sequence[int]
    clips: int
    groups: int
    targets: Sequence[TargetFacts]
    scores: Sequence[Score]
    skipped: Sequence[Counter[str]]
    problems: dict[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Of JSON values: nothing of clocks or folders of states, so that the same probe gives the same bytes."""
        s = self.settings
        return {
            "shards": s.shards, "frames": s.frames, "folds": s.folds, "folds_by": s.folds_by,
            "classifier": s.classifier,
            "clips": self.clips, "groups": self.groups, "positions": list(s.places),
            "subjects": [
                {"kind": one.kind, "source": one.source, "step": one.step, "digest": one.digest, "layers": layers,
                 "dim": dim, "skipped": dict(sorted(skipped.items()))}
                for one, layers, dim, skipped
                in zip(self.subjects, self.layers, self.dims, self.skipped, strict=True)
            ],
            "targets": [
                {"name": t.name, "metric": t.metric, "columns": t.columns, "clips": t.clips,
                 "classes": list(t.classes), "chance": t.chance} for t in self.targets
            ],
            "not_probed": self.problems, "warnings": list(self.warnings),
            "scores": [
                {"subject": one.subject, "target": one.target, "position": one.place, "layer": one.layer,
                 "score": one.score.to_list(), "control": one.control.to_list(),
                 "selectivity": one.selectivity.to_list(), "penalties": list(one.penalties),
                 "difference": one.difference and one.difference.to_list()} for one in self.scores
            ],
        }  # fmt: skip
