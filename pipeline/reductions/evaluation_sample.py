"""Utterances that a reduction is measured on, and not fitted to where there are enough others."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from coat.manifests.errors import InputError
from coat.pipeline.store.rows import OK, Row
from coat.pipeline.store.target_set import TargetSet

SAMPLE_VALUES = 2**23  # at most: 64 MB in float64
SAMPLE_SHARE = 5  # of a small set at most every fifth utterance
MIN_FIT_FRAMES = 10  # per dimension; where fewer would be left to fit to, the sample is not held out


@dataclass(frozen=True)
class EvaluationSample:
    """Frames `[N, D]` of each utterance. `held_out`: the reduction is not fitted to them."""

    utterances: tuple[NDArray[Any], ...]
    held_out: bool
    rows: tuple[Row, ...] = ()  # where the frames of each lie


def take_evaluation_sample(targets: TargetSet, max_values: int = SAMPLE_VALUES) -> EvaluationSample:
    """The first utterances by digest, which is a random order that is always the same. InputError: no targets."""
    rows, dim = targets.rows, targets.spec.dim
    ok = rows.order[rows.status[rows.order] == OK]
    if not len(ok):
        raise InputError(f"{targets.url}: no targets to measure a reduction on; run `coat extract`")
    utterances, taken, values = [], [], 0
    for position in ok[: max(1, len(ok) // SAMPLE_SHARE)]:
        taken.append(rows.row_at(int(position)))
        utterances.append(targets.read_row(taken[-1]).frames)
        values += utterances[-1].size
        if values >= max_values:
            break
    left = sum(int(done["frames"]) for done in targets.done.values()) - values // dim
    return EvaluationSample(tuple(utterances), left >= MIN_FIT_FRAMES * dim, tuple(taken))
