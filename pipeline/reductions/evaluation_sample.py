"""Utterances that a reduction is measured on, and not fitted to where there are enough others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.compute
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.pipeline.store.outcomes import BLOCK_ROWS, Outcomes
from coat.pipeline.store.rows import OK, Row
from coat.pipeline.store.target_set import TargetSet

pc: Any = pyarrow.compute

SAMPLE_VALUES = 2**23  # at most: 64 MB in float64
SAMPLE_SHARE = 5  # of a small set at most every fifth utterance
MIN_FIT_FRAMES = 10  # per dimension; where fewer would be left to fit to, the sample is not held out
ROWS_AT_ONCE = 16  # of as many units, whose tables are read together


@dataclass(frozen=True)
class EvaluationSample:
    """Frames `[N, D]` of each utterance. `held_out`: the reduction is not fitted to them."""

    utterances: tuple[NDArray[Any], ...]
    held_out: bool
    rows: tuple[Row, ...] = ()  # where the frames of each lie


def take_evaluation_sample(targets: TargetSet, max_values: int = SAMPLE_VALUES) -> EvaluationSample:
    """The first utterances by digest, which is a random order that is always the same. InputError: no targets."""
    own, dim = TargetSet(targets.url, targets.spec), targets.spec.dim  # so that what it reads of every row is not kept
    count = len(own)
    if not count:
        raise InputError(f"{targets.url}: no targets to measure a reduction on; run `coat extract`")
    utterances, taken, values = [], [], 0
    for row in islice(rows_by_digest(own), max(1, count // SAMPLE_SHARE)):
        taken.append(row)
        utterances.append(own.read_row(row).frames)
        values += utterances[-1].size
        if values >= max_values:
            break
    left = own.done.sum("frames") - values // dim
    return EvaluationSample(tuple(utterances), left >= MIN_FIT_FRAMES * dim, tuple(taken))


def rows_by_digest(targets: TargetSet) -> Iterator[Row]:
    """Rows that have targets. Where their frames lie is read from their units, as they are asked for."""
    outcomes = targets.outcomes
    for start in range(0, len(outcomes.order), BLOCK_ROWS):
        block = outcomes.order[start : start + BLOCK_ROWS]
        ok = block[outcomes.status[block] == OK]
        for first in range(0, len(ok), ROWS_AT_ONCE):
            yield from rows_at(targets, outcomes, ok[first : first + ROWS_AT_ONCE])


def rows_at(targets: TargetSet, outcomes: Outcomes, positions: NDArray[np.integer]) -> Sequence[Row]:
    units = [outcomes.units[unit] for unit in outcomes.unit[positions].tolist()]
    names = list(dict.fromkeys(units))
    tables = dict(zip(names, storage.in_parallel(targets.read_table, names, ROWS_AT_ONCE), strict=True))
    rows = []
    for unit, digest in zip(units, outcomes.digests[positions].tolist(), strict=True):
        *_, values = tables[unit].filter(pc.equal(tables[unit]["digest"], f"{digest:016x}")).to_pylist()
        rows.append(Row(unit=unit, **values))
    return rows
