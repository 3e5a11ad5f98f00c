"""Rows of the cache, the clips that they are of, and the targets of each. N rows of a place, C clips."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coat.analysis.probing.folds import group_numbers
from coat.analysis.probing.reading import Read
from coat.analysis.probing.results import ProbeSettings
from coat.analysis.probing.targets import ClipTargets, Target, Wanted, expert_targets, label_target
from coat.manifests import InputError, ShardIndex


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
