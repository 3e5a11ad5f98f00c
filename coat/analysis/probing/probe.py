"""`coat probe`: what linear probes read off the states of one or several subjects, over the same clips and folds.

N rows of a place (a clip, or with `frames` a position), G groups of clips.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.analysis.probing.fitting import TargetGroup, probe_with_fits, target_groups
from coat.analysis.probing.folds import group_numbers
from coat.analysis.probing.moments import LEAST_FOLDS
from coat.analysis.probing.places import PLACES, TIMED
from coat.analysis.probing.reading import Read, ReadSettings, read_subject
from coat.analysis.probing.scores import Drawn, Score, draw
from coat.analysis.probing.subject import Subject, device_of_sums
from coat.analysis.probing.targets import ClipTargets, Target, Wanted, expert_targets, label_target, read_targets
from coat.manifests import InputError, ShardIndex
from coat.trainer.evaluation.statistics.bootstrap import SEED

Told = Callable[..., None]
Progress = Callable[[float, str, str], AbstractContextManager[Told]]  # total, unit, label


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

    def __post_init__(self) -> None:
        if unknown := [place for place in self.places if place not in PLACES]:
            raise InputError(f"--positions {unknown[0]}: expected some of {', '.join(PLACES)}")
        if not self.places:
            raise InputError(f"--positions is empty; expected some of {', '.join(PLACES)}")
        if self.folds < LEAST_FOLDS:
            raise InputError(f"--folds {self.folds}: expected {LEAST_FOLDS} or more: the penalty is chosen inside")
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

    def to_dict(self) -> dict[str, Any]:
        """Of JSON values: nothing of clocks or folders of states, so that the same probe gives the same bytes."""
        s = self.settings
        return {
            "shards": s.shards, "frames": s.frames, "folds": s.folds, "folds_by": s.folds_by,
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
            "not_probed": self.problems,
            "scores": [
                {"subject": one.subject, "target": one.target, "position": one.place, "layer": one.layer,
                 "score": one.score.to_list(), "control": one.control.to_list(),
                 "selectivity": one.selectivity.to_list(), "penalties": list(one.penalties),
                 "difference": one.difference and one.difference.to_list()} for one in self.scores
            ],
        }  # fmt: skip


def probe(settings: ProbeSettings, subjects: Sequence[Subject], cache: str, progress: Progress) -> Probes:
    """InputError: shards without what is asked for, too few clips, no such layer. RunError: states cannot be kept."""
    index = ShardIndex.read(settings.shards)
    experts = chosen_experts(index, settings.experts)
    if not experts and not settings.labels:
        raise InputError("nothing to read off the states: give --experts that the shards have, or --label")
    of_reading = ReadSettings(
        settings.layers, settings.places, settings.by_position, settings.clips, settings.batch_size,
        settings.batch_tokens, settings.device,
    )  # fmt: skip
    samples = index.samples if settings.clips is None else min(settings.clips, index.samples)
    reads = []
    for subject in subjects:
        with progress(samples, "samples", f"states of {subject.name}") as told:
            reads.append(read_subject(subject, index, cache, of_reading, told))
    clips = Clips.of(reads)
    if not clips.keys:
        skipped = "; ".join(f"{read.subject.name}: {dict(read.skipped())}" for read in reads)
        raise InputError(f"{settings.shards}: no sample that all can take ({skipped})")
    labels = [*settings.labels, *([settings.folds_by] if settings.folds_by else [])]
    with progress(len(clips.keys), "samples", "targets") as told:
        found = read_targets(index, clips.wanted(reads, settings.by_position), experts, labels, told)
    if settings.folds_by:
        clips = clips.grouped_by(settings.folds_by, found)
    return fitted(settings, reads, clips, [found[key] for key in clips.keys], index, experts, progress)


def chosen_experts(index: ShardIndex, wanted: Sequence[str] | None) -> list[str]:
    if unknown := sorted(set(wanted or ()) - set(index.experts)):
        raise InputError(f"{index.path}: no targets of {unknown[0]}; it has {', '.join(index.experts) or 'none'}")
    return [name for name in index.experts if (wanted is None and index.experts[name].frames) or name in (wanted or ())]


@dataclass(frozen=True)
class Clips:
    """Samples that all subjects took, in the order of the tars, and the group of each."""

    keys: list[str]
    group_names: list[str]

    @classmethod
    def of(cls, reads: Sequence[Read]) -> "Clips":
        taken = [
            {key: group for unit in read.units for block in read.states.blocks(unit)
             for key, group in zip(block["keys"], block["groups"], strict=True)} for read in reads
        ]  # fmt: skip
        keys = [key for key in taken[0] if all(key in other for other in taken[1:])]
        return cls(keys, [taken[0][key] for key in keys])

    def wanted(self, reads: Sequence[Read], by_position: Sequence[str]) -> dict[str, Wanted]:
        found: dict[str, Wanted] = {}
        known = set(self.keys)
        for read in reads:
            for block in (block for unit in read.units for block in read.states.blocks(unit)):
                for n, (key, seconds) in enumerate(zip(block["keys"], block["seconds"], strict=True)):
                    if key in known:
                        one = found.setdefault(key, Wanted(seconds))
                        one.counts.update(block["rows"][place][n] for place in by_position if block["rows"][place][n])
        return found

    def grouped_by(self, label: str, targets: dict[str, ClipTargets]) -> "Clips":
        """InputError where a sample lacks the label."""
        values = [targets[key].labels[label] for key in self.keys]
        if None in values:
            raise InputError(f"--folds-by {label}: {self.keys[values.index(None)]} has no such key in its extra")
        return replace(self, group_names=[f"{label} {value}" for value in values])

    @property
    def groups(self) -> tuple[NDArray[np.int64], int]:
        return group_numbers(self.group_names)


@dataclass(frozen=True)
class PlaceRows:
    """Rows of a place as they lie in the cache: the clip of each (-1: not a common one), and rows of each sample."""

    clip_N: NDArray[np.int64]
    counts: Sequence[int]  # of the clips that are rows, in the order of the rows

    @classmethod
    def of(cls, read: Read, place: str, number: dict[str, int]) -> "PlaceRows":
        clips, counts = [], []
        for block in (block for unit in read.units for block in read.states.blocks(unit)):
            for key, count in zip(block["keys"], block["rows"][place], strict=True):
                clips.append(number.get(key, -1))
                counts.append(count)
        return cls(np.repeat(np.array(clips, np.int64), counts), counts)


def fitted(
    settings: ProbeSettings, reads: Sequence[Read], clips: Clips, found: Sequence[ClipTargets], index: ShardIndex,
    experts: Sequence[str], progress: Progress,
) -> Probes:  # fmt: skip
    group_C, groups = clips.groups
    number = {key: n for n, key in enumerate(clips.keys)}
    problems: dict[str, str] = {}
    facts: dict[str, TargetFacts] = {}
    order: dict[str, None] = {}  # of targets, as shards and labels have them
    scores: list[Score] = []
    first: dict[tuple[str, str, int], Drawn] = {}
    with ExitStack() as stack:
        steps = sum(len(settings.places) * len(read.layers) for read in reads)
        told = stack.enter_context(progress(steps, "layers and positions", "probes"))
        for s, read in enumerate(reads):
            for place in settings.places:
                rows = PlaceRows.of(read, place, number)
                if not len(rows.clip_N):
                    problems[f"{read.subject.name}: {place}"] = "has no such positions"
                    told(len(read.layers))
                    continue
                targets = targets_of(settings, rows, found, index, experts, place, group_C)
                order |= dict.fromkeys(target.name for target in targets)
                group_N = group_C[rows.clip_N]
                usable, not_usable = target_groups(targets, group_N, rows.clip_N >= 0, settings.folds)
                problems |= {f"{place}: {name}": why for name, why in not_usable.items()}
                for group in usable:
                    for target in group.targets:
                        facts.setdefault(target.name, facts_of(target, group))
                found_here = probe_place(read, place, usable, groups, told)
                for (layer, target, _), (drawn, penalties) in found_here.items():
                    scores.append(score_of(s, target, place, layer, drawn, penalties, first))
    if not scores:
        why = "; ".join(f"{name} {reason}" for name, reason in list(problems.items())[:3])
        raise InputError(f"{settings.shards}: nothing can be probed ({why})")
    return Probes(
        settings, [read.subject for read in reads], [read.count for read in reads], [read.states.dim for read in reads],
        len(clips.keys), groups, [facts[name] for name in order if name in facts], scores, [read.skipped() for read in reads], problems,
    )  # fmt: skip


def targets_of(
    settings: ProbeSettings, rows: PlaceRows, found: Sequence[ClipTargets], index: ShardIndex, experts: Sequence[str],
    place: str, group_C: NDArray[np.int64],
) -> list[Target]:  # fmt: skip
    """With a row for each row of the place, NaN for those of clips that are not common."""
    targets = []
    for name in experts:
        columns = index.experts[name].spec.dim
        rows_NC = np.full((len(rows.clip_N), columns), np.nan, np.float32)
        start = 0
        for count in rows.counts:
            if count and (clip := rows.clip_N[start]) >= 0:
                by_position = place in settings.by_position
                one = found[clip].positions.get((name, count)) if by_position else found[clip].means.get(name)
                if one is not None:
                    rows_NC[start : start + count] = one
            start += count
        targets += expert_targets(name, index.experts[name], rows_NC)
    for name in settings.labels:
        of_clips = label_target(name, [clip.labels[name] for clip in found], group_C)
        y_NC = of_clips.y_NC[rows.clip_N]
        y_NC[rows.clip_N < 0] = np.nan
        targets.append(replace(of_clips, y_NC=y_NC))
    return targets


def facts_of(target: Target, group: TargetGroup) -> TargetFacts:
    chance = None
    if target.classes:
        chance = round(float(target.y_NC[group.rows_N].mean(0).max()), 6)
    clips = len(np.unique(group.group_N))
    return TargetFacts(target.name, target.metric, target.y_NC.shape[1], clips, target.classes, chance)


def probe_place(
    read: Read, place: str, usable: Sequence[TargetGroup], groups: int, told: Told
) -> dict[tuple[int, str, str], tuple[Drawn, tuple[float, ...]]]:
    """By layer, target and metric."""
    names: list[tuple[int, str, str]] = []
    sums: list[NDArray[np.float64]] = []
    penalties: list[tuple[float, ...]] = []
    for layer in read.layers:
        for group in usable:
            found, fits = probe_with_fits(
                lambda layer=layer: read.states.read(read.units, place, layer), group, groups, device_of_sums()
            )
            names += [(layer, target.name, target.metric) for target in group.targets]
            sums += found
            penalties += [tuple(fit.penalties[n] for fit in fits.values()) for n in range(len(group.targets))]
        told(1)
    if not sums:
        return {}
    drawn = draw([metric for _, _, metric in names], sums, SEED)
    return {name: (one, of) for name, one, of in zip(names, drawn, penalties, strict=True)}


def score_of(
    subject: int, target: str, place: str, layer: int, drawn: Drawn, penalties: tuple[float, ...],
    first: dict[tuple[str, str, int], Drawn],
) -> Score:  # fmt: skip
    """`first`: scores of the first subject, which it is compared with."""
    key = (target, place, layer)
    if subject == 0:
        first[key] = drawn
    difference = drawn.less(first[key]) if subject and key in first else None
    return Score(subject, target, place, layer, *drawn.figures(), penalties, difference)
