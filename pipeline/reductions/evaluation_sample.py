"""Utterances that a reduction is measured on."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from coat.manifests.errors import InputError
from coat.pipeline.store.rows import OK
from coat.pipeline.store.target_set import TargetSet

SAMPLE_VALUES = 2**23  # of the held-out sample: 64 MB in float64


SAMPLE_SHARE = 5  # of a small set at most every fifth utterance


SURE = 10  # frames to fit per dimension; of fewer, the sample is not held out


@dataclass(frozen=True)
class Sample:
    """Utterances `[N, D]` that a reduction is measured on. `apart`: it is not fitted to them."""

    utterances: tuple[NDArray[Any], ...]
    apart: bool


def held_out(targets: TargetSet, most_values: int = SAMPLE_VALUES) -> Sample:
    """Utterances by the order of their digests, which is random and always the same. InputError: no targets."""
    rows, dim = targets.rows, targets.spec.dim
    ok = rows.order[rows.status[rows.order] == OK]
    if not len(ok):
        raise InputError(f"{targets.url}: no targets to measure a reduction on; run `coat extract`")
    taken, values = [], 0
    for position in ok[: max(1, len(ok) // SAMPLE_SHARE)]:
        taken.append(targets.read_row(rows.row_at(int(position))).frames)
        values += taken[-1].size
        if values >= most_values:
            break
    left = sum(int(done["frames"]) for done in targets.done.values()) - values // dim
    return Sample(tuple(taken), apart=left >= SURE * dim)
