"""Figures with intervals, of records of clips.

Clips are drawn again, with replacement, and their records added up with the weights of each draw: for means and ratios
that is what scoring the drawn frames anew would give, to the last digit; for mAP and AUC, too, up to the steps that
scores are kept in. Clips of one sound are drawn together. All that is compared sees the same draws.

C clips, R draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.trainer.evaluation.statistics.bootstrap import Clusters, spread
from coat.trainer.fidelity.kept import ClipRecord, KeptClips
from coat.trainer.fidelity.measures.measure import Figures, Measure
from coat.trainer.fidelity.measures.pitch import PitchMeasure
from coat.trainer.fidelity.results import FLOOR, MEAN, RUN, ExpertFidelity, Figure, GroupFigures

MOST_GROUPS = 40  # corpora that are told apart; those with the fewest clips are one
OTHERS = "(others)"


def point_figures(measure: Measure, clips: Sequence[ClipRecord]) -> dict[str, float]:
    """Of all clips, without intervals; those that there is nothing to compute of are left out."""
    if not clips:
        return {}
    found = measure.figures(measure.stack([clip.record for clip in clips]), np.ones((1, len(clips))))
    return {name: float(values_R[0]) for name, values_R in found.items() if np.isfinite(values_R[0])}


@dataclass(frozen=True)
class Drawn:
    """Of some clips: figures with all weights 1, and those of the draws, by subject; none of the constant one, which
    has no intervals.
    """

    points: Mapping[str, Figures]
    draws: Mapping[str, Figures]

    def row(self, subject: str) -> dict[str, Figure]:
        draws = self.draws.get(subject)
        return {
            name: Figure(float(values_R[0]), None if draws is None else spread(draws[name]))
            for name, values_R in self.points[subject].items()
        }

    def differences(self, first: str, second: str) -> dict[str, Figure]:
        """First less second."""
        return {
            name: Figure(
                float((self.points[first][name] - self.points[second][name])[0]),
                spread(self.draws[first][name] - self.draws[second][name]),
            )
            for name in self.points[first]
        }


def score(name: str, measure: Measure, kept: Mapping[str, KeptClips]) -> ExpertFidelity:
    """Of one expert; `kept` by subject. All figures are of the clips that all subjects have; at least one."""
    by_place = {subject: {clip.place: clip for clip in one.clips} for subject, one in kept.items()}
    shared = [place for place in by_place[RUN] if all(place in one for one in by_place.values())]
    clips = [by_place[RUN][place] for place in shared]
    stacks = {s: measure.stack([one[place].record for place in shared]) for s, one in by_place.items()}
    clusters = Clusters.of([f"{clip.sound:016x}" for clip in clips])
    rows = {"": np.arange(len(clips)), **group_rows(clips)}
    drawn = draw(measure, stacks, clusters, rows)
    groups = [
        GroupFigures(group, len(at), sum(clips[i].frames for i in at), {s: drawn[group].row(s) for s in stacks})
        for group, at in rows.items()
        if group
    ]
    expert = measure.expert
    errors = {}
    if isinstance(measure, PitchMeasure):
        errors = {subject: tuple(measure.errors(stack).tolist()) for subject, stack in stacks.items()}
    return ExpertFidelity(
        expert=name,
        family=expert.spec.family,
        kind=expert.spec.kind,
        rate_hz=expert.spec.rate_hz,
        reduction=expert.reduction.summary() if expert.reduction else "",
        kept_variance=kept_variance(expert.fidelity),
        clips=len(clips),
        clips_seen=kept[RUN].seen,
        clips_apart=len(set().union(*by_place.values())) - len(clips),
        frames=sum(clip.frames for clip in clips),
        draws=measure.draws,
        figures={subject: drawn[""].row(subject) for subject in stacks},
        over_floor=drawn[""].differences(RUN, FLOOR) if FLOOR in stacks else {},
        groups=tuple(groups),
        parts={subject: tuple(measure.parts(stack)) for subject, stack in stacks.items()},
        errors=errors,
    )


def draw(
    measure: Measure, stacks: Mapping[str, Any], clusters: Clusters, rows: Mapping[str, NDArray[np.intp]]
) -> dict[str, Drawn]:
    """By group; `rows` are its clips."""
    draws = {group: {subject: [] for subject in stacks if subject != MEAN} for group in rows}
    parts = {group: {subject: stack[at] for subject, stack in stacks.items()} for group, at in rows.items()}
    for drawn_RC in clusters.weights(measure.draws):
        weights_RC = drawn_RC[:, clusters.of_row].astype(np.float64)
        for group, at in rows.items():
            for subject, found in draws[group].items():
                found.append(measure.figures(parts[group][subject], weights_RC[:, at]))
    return {
        group: Drawn(
            {s: measure.figures(stack, np.ones((1, len(at)))) for s, stack in parts[group].items()},
            {s: {name: np.concatenate([f[name] for f in found]) for name in found[0]} for s, found in by.items()},
        )
        for (group, at), by in zip(rows.items(), draws.values(), strict=True)
    }


def group_rows(clips: Sequence[ClipRecord]) -> dict[str, NDArray[np.intp]]:
    """Indices of the clips of each corpus, by its name; none where there are not two. Of many, the largest."""
    members: dict[str, list[int]] = {}
    for i, clip in enumerate(clips):
        members.setdefault(clip.group or "(none)", []).append(i)
    by_size = sorted(members, key=lambda name: (-len(members[name]), name))
    if len(by_size) > MOST_GROUPS:
        rest = [i for name in by_size[MOST_GROUPS - 1 :] for i in members.pop(name)]
        members[OTHERS] = sorted(rest)
    return {name: np.array(members[name]) for name in sorted(members)} if len(members) > 1 else {}


def kept_variance(fidelity: Mapping[str, Any] | None) -> float | None:
    """What the index says of reduced targets: the share of the extracted ones' variance that they hold."""
    return None if not fidelity else fidelity.get("original", {}).get("explained_variance")
