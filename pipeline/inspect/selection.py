"""Which utterance, target sets and seconds are shown."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute

from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore

pc: Any = pyarrow.compute

DEFAULT_SHOWN_S = 60.0  # where no --end is given
MAX_NAMED_IDS = 3  # that look like one that is not there
MAX_COMPARED_IDS = 2000  # with one that is not there
MIN_FINGERPRINT_DIGITS = 6  # that stand for a fingerprint


def find_utterance(manifest: Manifest, identity: str) -> Utterance:
    """The row of an id; InputError names ids that look like it."""
    at = pc.index(manifest.ids, pa.scalar(identity, manifest.ids.type)).as_py()
    if at >= 0:
        return manifest[at]
    similar = difflib.get_close_matches(identity, similar_ids(manifest.ids, identity), MAX_NAMED_IDS, cutoff=0.0)
    raise InputError(f"--id {identity}: {manifest.path} has no such id; near it are {', '.join(similar)}")


def similar_ids(ids: pa.Array, identity: str) -> list[str]:
    """Some ids that begin as this one does for longest, and the first ones: comparing millions takes minutes."""
    found = ids[:0]
    for length in range(len(identity), 0, -1):
        found = ids.filter(pc.starts_with(ids, identity[:length]))
        if len(found):
            break
    return list(dict.fromkeys(found[:MAX_COMPARED_IDS].to_pylist() + ids[:MAX_COMPARED_IDS].to_pylist()))


def select_target_sets(store: str, experts: Sequence[str]) -> Iterator[tuple[str, TargetSet]]:
    """The name under which each is shown, and the set; several of one expert are shown with their fingerprints."""
    all_sets = list(TargetStore(store).target_sets())
    if not all_sets:
        raise InputError(f"{store}: no target sets (<expert>/<fingerprint>/spec.json) in it; is this a store?")
    chosen: dict[str, TargetSet] = {}
    for expert in experts or dict.fromkeys(s.spec.expert for s in all_sets):
        name, _, fingerprint = expert.partition("@")
        found = [s for s in all_sets if s.spec.expert == name and s.spec.fingerprint.startswith(fingerprint)]
        for targets in found or [TargetStore(store).target_set(name, fingerprint or None)]:  # which says what there is
            chosen.setdefault(targets.url, targets)
    for targets in chosen.values():
        spec = targets.spec
        others = [s.spec.fingerprint for s in all_sets if s.spec.expert == spec.expert and s.url != targets.url]
        digits = MIN_FINGERPRINT_DIGITS
        while any(o.startswith(spec.fingerprint[:digits]) for o in others):
            digits += 1
        yield f"{spec.expert}@{spec.fingerprint[:digits]}" if others else spec.expert, targets


def select_seconds(start_s: float | None, end_s: float | None, seconds: float) -> tuple[float, float]:
    """Start and end of what is shown. InputError where nothing of the utterance lies there."""
    start = start_s or 0.0
    end = min(seconds, start + DEFAULT_SHOWN_S if end_s is None else end_s)
    if not (0 <= start < end):  # NaN too
        options = f"--start {start:g}" + ("" if end_s is None else f" --end {end_s:g}")
        raise InputError(f"{options}: expected seconds within the utterance, which lasts {seconds:.3f} s")
    return start, end
