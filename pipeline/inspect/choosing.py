"""Which clips of a corpus a gallery shows: some by chance, named ones, or those that stand out.

N frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError
from coat.manifests.targets.frame_rate import LOG2_F0, VOICED, VOICING
from coat.pipeline.inspect.selection import find_utterance, pc
from coat.pipeline.store.rows import FAILED, OK
from coat.pipeline.store.target_set import TargetSet

MAX_COMPARED = 2000  # clips whose pitches are compared, drawn at random where there are more
NEAR_CENTS, CENTS = 50, 1200

Positions = NDArray[np.int64]  # of rows of a manifest


@dataclass(frozen=True)
class Chosen:
    """A row of the manifest, and the value that it was chosen by, where there is one."""

    position: int
    value: float | None = None


def with_audio(manifest: Manifest) -> Positions:
    return np.flatnonzero(manifest.with_audio)


def by_ids(manifest: Manifest, ids: Sequence[str]) -> list[Chosen]:
    """In the order of the ids, each once. InputError names one that is not there."""
    wanted = list(dict.fromkeys(ids))
    at = pc.index_in(pa.array(wanted, manifest.ids.type), manifest.ids)
    for identity, position in zip(wanted, at.to_pylist(), strict=True):
        if position is None:
            find_utterance(manifest, identity)  # which says what is near it
    heard = manifest.with_audio
    return [Chosen(position) for position in at.to_pylist() if heard[position]]


def failed(manifest: Manifest, targets: Sequence[TargetSet]) -> list[Chosen]:
    """Rows that failed with any of these experts, in the manifest's order."""
    digests = manifest.digests
    any_N = np.zeros(len(manifest), bool)
    for one in targets:
        at = one.rows.find(digests)
        any_N |= (at >= 0) & (one.rows.status[at] == FAILED) if len(one.rows) else False
    return [Chosen(int(position)) for position in np.flatnonzero(any_N)]


def longest(manifest: Manifest, targets: Sequence[TargetSet], count: int) -> list[Chosen]:
    """By the seconds that the manifest states, or that were decoded; rows of unknown length come last."""
    seconds_N = manifest.durations.copy()
    for one in targets:
        if not len(one.rows):
            continue
        at = one.rows.find(manifest.digests)
        decoded = np.isnan(seconds_N) & (at >= 0) & (one.rows.status[at] == OK)
        seconds_N[decoded] = one.rows.seconds[at[decoded]]
    heard = with_audio(manifest)
    order = np.argsort(-np.nan_to_num(seconds_N[heard], nan=-1.0), kind="stable")[:count]
    return [Chosen(int(position), float(seconds_N[position])) for position in heard[order]]


def disagreeing(
    manifest: Manifest, a: TargetSet, b: TargetSet, seed: int = 0, advance: Callable[[int], None] = lambda n: None
) -> list[Chosen]:
    """Clips that both pitch experts heard, those first in whose frames they disagree most.

    Of more than MAX_COMPARED a sample is compared. InputError where one of them is no pitch expert.
    """
    for one in (a, b):
        if one.spec.kind != "pitch":
            raise InputError(f"{one.spec.expert}: its targets are {one.spec.kind}; only experts of pitch are compared")
    both = with_audio(manifest)
    for one in (a, b):
        at = one.rows.find(manifest.digests[both])
        both = both[(at >= 0) & (one.rows.status[at] == OK)] if len(one.rows) else both[:0]
    if len(both) > MAX_COMPARED:
        both = np.sort(np.random.default_rng(seed).choice(both, MAX_COMPARED, replace=False))
    found = []
    for utterance, position in zip(manifest.take(both), both.tolist(), strict=True):
        frames = [np.asarray(t.read_row(t.rows[utterance.digest]).frames, np.float64) for t in (a, b)]
        if all(map(len, frames)):
            found.append(Chosen(position, disagreement(frames[0], frames[1], a, b)))
        advance(1)
    return sorted(found, key=lambda chosen: -(chosen.value or 0.0))


def disagreement(a_ND: NDArray[np.float64], b_ND: NDArray[np.float64], a: TargetSet, b: TargetSet) -> float:
    """Share of the frames of the slower one at which one hears a voice and the other none, or they are more than 50
    cents apart.
    """
    if a.spec.rate_hz > b.spec.rate_hz:
        return disagreement(b_ND, a_ND, b, a)
    times_N = a.spec.times(len(a_ND))
    nearest_N = np.clip(np.round((times_N - b.spec.start_s) * b.spec.rate_hz).astype(int), 0, len(b_ND) - 1)
    other_ND = b_ND[nearest_N]
    voiced, other_voiced = a_ND[:, VOICING] >= VOICED, other_ND[:, VOICING] >= VOICED
    apart = CENTS * np.abs(a_ND[:, LOG2_F0] - other_ND[:, LOG2_F0]) > NEAR_CENTS
    return float((np.where(voiced & other_voiced, apart, voiced != other_voiced)).mean())


def sampled(chosen: Sequence[Chosen], count: int, seed: int) -> list[Chosen]:
    """Some of them by chance, in their order; all of them where there are no more."""
    if len(chosen) <= count:
        return list(chosen)
    kept = np.sort(np.random.default_rng(seed).choice(len(chosen), count, replace=False))
    return [chosen[i] for i in kept]
