"""Probes of one place and layer: two passes over its states, some tens more for words; none of them is kept.

N rows, D dim, C columns, G groups.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coat.analysis.probing.folds import fold_numbers, shuffled_rows
from coat.analysis.probing.logistic import MOST_PASSES, TOLERANCE, Words, fit_words
from coat.analysis.probing.moments import LEAST_FOLDS, FoldFit, Moments, cross_validated, unfitted
from coat.analysis.probing.scores import SUMS
from coat.analysis.probing.targets import Target

Blocks = Callable[[], Iterable[NDArray[np.float32]]]  # the states of a place and layer, from the first row on
KEPT_BYTES = 64 * 2**20  # states of a place and layer up to which they are read once, though words take many passes
Classifier = Literal["logistic", "ridge"]
LEAST_ROWS = 10  # that have a target


@dataclass(frozen=True)
class TargetGroup:
    """Targets that the same rows have, so that they share sums; with a shuffled copy of each, the control task."""

    targets: Sequence[Target]
    rows_N: NDArray[np.int64]  # which rows of the place have them, ascending
    group_N: NDArray[np.int64]  # of these rows
    folds: int

    @cached_property
    def fold_N(self) -> NDArray[np.int64]:
        return fold_numbers(self.group_N, self.folds)

    @cached_property
    def y_NC(self) -> NDArray[np.float32]:
        """Of all targets, then of all controls."""
        own_NC = np.concatenate([target.y_NC[self.rows_N] for target in self.targets], 1)
        return np.concatenate([own_NC, own_NC[shuffled_rows(self.group_N)]], 1)

    @property
    def columns(self) -> list[slice]:
        """Of each target, then of each control."""
        found, first = [], 0
        for target in (*self.targets, *self.targets):
            found.append(slice(first, first + target.y_NC.shape[1]))
            first = found[-1].stop
        return found

    @property
    def problem(self) -> str | None:
        folds = len(np.unique(self.fold_N))
        if len(self.rows_N) < LEAST_ROWS:
            return f"has {len(self.rows_N)} rows; {LEAST_ROWS} are needed"
        return f"has rows in {folds} folds; {LEAST_FOLDS} are needed" if folds < LEAST_FOLDS else None


def target_groups(
    targets: Sequence[Target], group_N: NDArray[np.int64], used_N: NDArray[np.bool_], folds: int
) -> tuple[list[TargetGroup], dict[str, str]]:
    """Targets by the rows that have them, of those in `used_N`; and why others cannot be probed, by name."""
    by_rows: dict[bytes, tuple[NDArray[np.bool_], list[Target]]] = {}
    problems: dict[str, str] = {}
    for target in targets:
        has_N = np.isfinite(target.y_NC).all(1) & used_N
        known_NC = target.y_NC[has_N]
        if target.y_NC.shape[1] == 0 or (len(known_NC) and (known_NC == known_NC[0]).all()):
            problems[target.name] = "is the same in all clips"
        else:
            by_rows.setdefault(np.packbits(has_N).tobytes(), (has_N, []))[1].append(target)
    found = []
    for has_N, of_rows in by_rows.values():
        rows_N = np.flatnonzero(has_N)
        made = TargetGroup(of_rows, rows_N, group_N[rows_N], folds)
        if made.problem:
            problems |= {target.name: made.problem for target in of_rows}
        else:
            found.append(made)
    return found, problems


def probe_states(
    blocks: Blocks, group: TargetGroup, groups: int, device: torch.device, classifier: Classifier = "logistic"
) -> list[NDArray[np.float64]]:
    """For each target sums `[G, 4]`, see `scores.of_sums`: of rows that their fold's map was not fitted to."""
    sums, _ = probe_with_fits(blocks, group, groups, device, classifier)
    return sums


def probe_with_fits(
    blocks: Blocks, group: TargetGroup, groups: int, device: torch.device, classifier: Classifier = "logistic"
) -> tuple[list[NDArray[np.float64]], dict[int, FoldFit]]:
    """And the map of each fold."""
    if classifier == "logistic" and any(target.classes for target in group.targets):
        blocks = FewBlocks(blocks)
    moments, shift_D = fold_moments(blocks, group, device)
    folds = list(moments.values())
    logistic = [bool(target.classes) and classifier == "logistic" for target in group.targets]
    by_fold = unfitted(folds, len(group.columns)) if all(logistic) else cross_validated(folds, group.columns)
    if any(logistic):
        by_fold = with_words(blocks, group, folds, shift_D, by_fold)
    fits = dict(zip(moments, by_fold, strict=True))
    count = len(group.targets)
    sums = [np.zeros((groups, SUMS)) for _ in range(count)]
    for x_ND, y_NC, at_N in chosen_rows(blocks, group, device):
        fold_N, group_N = group.fold_N[at_N], group.group_N[at_N]
        for fold in np.unique(fold_N):
            here = np.flatnonzero(fold_N == fold)
            fitted, in_fold = fits[int(fold)], torch.from_numpy(here).to(device)
            y_MC = y_NC[in_fold]
            predicted_MC = fitted.predict(x_ND[in_fold] - shift_D)
            for n, columns in enumerate(group.columns):
                target = group.targets[n % count]
                both = (predicted_MC[:, columns], y_MC[:, columns], fitted.fit.mean_C[columns])
                over_M, under_M = (hits if target.classes else squares)(*both)
                first = 2 * (n // count)  # a control's are behind
                np.add.at(sums[n % count][:, first], group_N[here], over_M.cpu().numpy())
                np.add.at(sums[n % count][:, first + 1], group_N[here], under_M.cpu().numpy())
    return sums, fits


class FewBlocks:
    """Blocks that are read once where they have KEPT_BYTES or less in all, and else each time."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.kept: list[NDArray[np.float32]] | None = None

    def __call__(self) -> Iterable[NDArray[np.float32]]:
        return self.read() if self.kept is None else self.kept

    def read(self) -> Iterator[NDArray[np.float32]]:
        found, left = [], KEPT_BYTES
        for block_ND in self.blocks():
            left -= block_ND.nbytes
            found = [*found, block_ND] if left >= 0 else []
            yield block_ND
        self.kept = found if left >= 0 else None


def with_words(
    blocks: Blocks, group: TargetGroup, folds: Sequence[Moments], shift_D: Tensor, fits: Sequence[FoldFit]
) -> list[FoldFit]:
    """The maps with those of words by logistic regression."""
    device, count = shift_D.device, len(group.targets)
    numbers = [n for n, target in enumerate(group.targets) if target.classes]
    fold_N = torch.from_numpy(np.unique(group.fold_N, return_inverse=True)[1]).to(device)
    words = []
    for n in numbers:
        columns = group.columns[n], group.columns[n + count]
        class_SN = np.stack([group.y_NC[:, of].argmax(1) for of in columns])
        words.append(Words(torch.from_numpy(class_SN).to(device), columns))

    def rows() -> Iterator[tuple[Tensor, Tensor]]:
        for x_ND, _, at_N in chosen_rows(blocks, group, device):
            yield x_ND - shift_D, torch.from_numpy(at_N).to(device)

    found = fit_words(rows, words, folds, fold_N, TOLERANCE, MOST_PASSES)
    made = []
    for k, fold in enumerate(fits):
        weights_DC, constant_C, penalties = fold.weights_DC.clone(), fold.constant_C.clone(), list(fold.penalties)
        for n, one, of in zip(numbers, words, found, strict=True):
            for s, columns in enumerate(one.columns):
                fit = of[2 * k + s]
                weights_DC[:, columns] = fit.weights_DC
                constant_C[columns] = fit.constant_C + fold.fit.mean_D @ fit.weights_DC
                penalties[n + s * count] = fit.penalty
        reached = [(n, of[2 * k].reached and of[2 * k + 1].reached) for n, of in zip(numbers, found, strict=True)]
        unfinished = tuple(n for n, there in reached if not there)
        made.append(
            replace(
                fold, weights_DC=weights_DC, constant_C=constant_C, penalties=tuple(penalties), unfinished=unfinished
            )
        )
    return made


def squares(predicted_NC: Tensor, y_NC: Tensor, mean_C: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors, and squared distances from the mean of what was fitted to, `[N]` each."""
    return ((predicted_NC - y_NC) ** 2).sum(1), ((y_NC - mean_C) ** 2).sum(1)


def hits(predicted_NC: Tensor, y_NC: Tensor, _mean_C: Tensor) -> tuple[Tensor, Tensor]:
    """1 where the largest column is the right one; and 1."""
    hit_N = (predicted_NC.argmax(1) == y_NC.argmax(1)).double()
    return hit_N, torch.ones_like(hit_N)


def fold_moments(blocks: Blocks, group: TargetGroup, device: torch.device) -> tuple[dict[int, Moments], Tensor]:
    """By fold; and what was taken off all states: the mean of the first rows, so that sums of squares keep their
    digits though a dimension lies far from zero.
    """
    moments: dict[int, Moments] = {}
    shift_D = None
    for x_ND, y_NC, at_N in chosen_rows(blocks, group, device):
        if shift_D is None:
            shift_D = x_ND.mean(0)
        x_ND -= shift_D
        fold_N = group.fold_N[at_N]
        for fold in np.unique(fold_N):
            in_fold = torch.from_numpy(np.flatnonzero(fold_N == fold)).to(device)
            before = moments.get(int(fold)) or Moments.empty(x_ND.shape[1], y_NC.shape[1], device)
            moments[int(fold)] = before.plus_rows(x_ND[in_fold], y_NC[in_fold])
    assert shift_D is not None
    return dict(sorted(moments.items())), shift_D


def chosen_rows(
    blocks: Blocks, group: TargetGroup, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, NDArray[np.int64]]]:
    """Of each block those rows that the group has: states and targets in float64, and where they stand in the group."""
    first = 0
    for block_ND in blocks():
        at_N = np.arange(*np.searchsorted(group.rows_N, (first, first + len(block_ND))))
        if len(at_N):
            x_ND = torch.from_numpy(block_ND[group.rows_N[at_N] - first]).to(device, torch.float64)
            yield x_ND, torch.from_numpy(group.y_NC[at_N]).to(device, torch.float64), at_N
        first += len(block_ND)
