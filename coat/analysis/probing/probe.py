"""`coat probe`: what linear probes read off the states of one or several subjects, over the same clips and folds.

N rows of a place (a clip, or with `frames` a position), G groups of clips.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from coat.analysis.probing.fitting import Classifier, TargetGroup, probe_with_fits, target_groups
from coat.analysis.probing.logistic import MOST_PASSES
from coat.analysis.probing.reading import Read, ReadSettings, read_subject
from coat.analysis.probing.results import Probes, ProbeSettings, TargetFacts
from coat.analysis.probing.rows import Clips, PlaceRows, targets_of
from coat.analysis.probing.scores import Drawn, Score, draw
from coat.analysis.probing.subject import Subject, device_of_sums
from coat.analysis.probing.targets import ClipTargets, Target, read_targets
from coat.manifests import InputError, ShardIndex
from coat.trainer.evaluation.statistics.bootstrap import SEED
from coat.trainer.ranks import raise_on_all_ranks

Told = Callable[..., None]
Progress = Callable[[float, str, str], AbstractContextManager[Told]]  # total, unit, label


def probe(
    settings: ProbeSettings, subjects: Sequence[Subject], cache: str, progress: Progress,
    accelerator: Accelerator | None = None,
) -> Probes | None:  # fmt: skip
    """Ranks share the reading of states; the main one fits, and None is what the others find.

    InputError: shards without what is asked for, too few clips, no such layer. RunError: states cannot be kept.
    """
    index = ShardIndex.read(settings.shards)
    experts = chosen_experts(index, settings.experts)
    if not experts and not settings.labels:
        raise InputError("nothing to read off the states: give --experts that the shards have, or --label")
    of_reading = ReadSettings(
        settings.layers, settings.places, settings.by_position, settings.clips, settings.batch_size,
        settings.batch_tokens, settings.device, *ranks_of(accelerator),
    )  # fmt: skip
    samples = index.samples if settings.clips is None else min(settings.clips, index.samples)
    reads = []
    for subject in subjects:
        bar = progress(samples // of_reading.ranks, "samples", f"states of {subject.name}")
        with bar as told, raise_on_all_ranks(accelerator) if accelerator else nullcontext():
            reads.append(read_subject(subject, index, cache, of_reading, told))
    if of_reading.rank:
        return None
    for read in reads:
        read.check_whole()
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


def ranks_of(accelerator: Accelerator | None) -> tuple[int, int]:
    return (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)


def chosen_experts(index: ShardIndex, wanted: Sequence[str] | None) -> list[str]:
    if unknown := sorted(set(wanted or ()) - set(index.experts)):
        raise InputError(f"{index.path}: no targets of {unknown[0]}; it has {', '.join(index.experts) or 'none'}")
    return [name for name in index.experts if (wanted is None and index.experts[name].frames) or name in (wanted or ())]


def fitted(
    settings: ProbeSettings, reads: Sequence[Read], clips: Clips, found: Sequence[ClipTargets], index: ShardIndex,
    experts: Sequence[str], progress: Progress,
) -> Probes:  # fmt: skip
    group_C, groups = clips.groups
    number = {key: n for n, key in enumerate(clips.keys)}
    problems: dict[str, str] = {}
    warnings: list[str] = []
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
                found_here, late = probe_place(read, place, usable, groups, settings.classifier, told)
                for (layer, target, _), (drawn, penalties) in found_here.items():
                    scores.append(score_of(s, target, place, layer, drawn, penalties, first))
                warnings += [f"{read.subject.name}: {place}: {name}: {why}" for name, why in late.items()]
    if not scores:
        why = "; ".join(f"{name} {reason}" for name, reason in list(problems.items())[:3])
        raise InputError(f"{settings.shards}: nothing can be probed ({why})")
    in_order = [facts[name] for name in order if name in facts]
    return Probes(
        settings, [read.subject for read in reads], [read.count for read in reads], [read.states.dim for read in reads],
        len(clips.keys), groups, in_order, scores, [read.skipped() for read in reads], problems, warnings,
    )  # fmt: skip


def facts_of(target: Target, group: TargetGroup) -> TargetFacts:
    chance = None
    if target.classes:
        chance = round(float(target.y_NC[group.rows_N].mean(0).max()), 6)
    clips = len(np.unique(group.group_N))
    return TargetFacts(target.name, target.metric, target.y_NC.shape[1], clips, target.classes, chance)


def probe_place(
    read: Read, place: str, usable: Sequence[TargetGroup], groups: int, classifier: Classifier, told: Told
) -> tuple[dict[tuple[int, str, str], tuple[Drawn, tuple[float, ...]]], dict[str, str]]:
    """By layer, target and metric; and by target where a logistic regression is not there yet."""
    names: list[tuple[int, str, str]] = []
    sums: list[NDArray[np.float64]] = []
    penalties: list[tuple[float, ...]] = []
    late: dict[str, list[int]] = {}  # layers
    for layer in read.layers:
        for group in usable:
            found, fits = probe_with_fits(
                lambda layer=layer: read.states.read(read.units, place, layer), group, groups, device_of_sums(),
                classifier,
            )  # fmt: skip
            for n in sorted({n for fit in fits.values() for n in fit.unfinished}):
                late.setdefault(group.targets[n].name, []).append(layer)
            names += [(layer, target.name, target.metric) for target in group.targets]
            sums += found
            penalties += [tuple(fit.penalties[n] for fit in fits.values()) for n in range(len(group.targets))]
        told(1)
    if not sums:
        return {}, {}
    drawn = draw([metric for _, _, metric in names], sums, SEED)
    why = f"gradients are not small after {MOST_PASSES} passes, layers "
    found_here = {name: (one, of) for name, one, of in zip(names, drawn, penalties, strict=True)}
    return found_here, {name: why + ", ".join(map(str, layers)) for name, layers in late.items()}


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
