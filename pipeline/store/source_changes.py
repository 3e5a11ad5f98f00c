"""Audio that changed after its extraction: the digest of a sound now, beside the one in the store."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.pipeline.store.target_set import TargetSet


@dataclass(frozen=True)
class Change:
    """A row whose sound is not what was heard, or cannot be heard any more."""

    expert: str
    fingerprint: str
    id: str
    message: str

    def __str__(self) -> str:
        return f"{self.expert}/{self.fingerprint}: {self.id}: {self.message}"


@dataclass(frozen=True)
class Heard:
    """What the sound units of one target set heard."""

    expert: str
    fingerprint: str
    sources: Mapping[str, str | None]  # Clip.digest by Utterance.digest


def sources_of(targets: TargetSet, sound: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    oldest_first = sorted(sound, key=lambda unit: (sound[unit].get("finished_at", ""), unit))
    return {row.digest: row.source for unit in oldest_first for row in targets.read_rows(unit)}


def changed(manifest: Manifest, heard: Sequence[Heard]) -> Iterator[Change]:
    """Each utterance is decoded once, however many experts have heard it."""
    wanted = (u for u in manifest if any(h.sources.get(u.digest) for h in heard))
    for u, now, fault in sounds(wanted):
        for h in heard:
            then = h.sources.get(u.digest)
            if then and now != then:
                what = f"cannot be heard any more ({fault})" if now is None else "sounds different from what was heard"
                yield Change(h.expert, h.fingerprint, u.id, f"{u.audio}: {what}")


AHEAD = 1024  # utterances that wait for a decoder


def sounds(utterances: Iterable[Utterance]) -> Iterator[tuple[Utterance, str | None, str]]:
    """Each with the digest of its sound as it is now, in order; None and why, where it cannot be decoded."""
    left = iter(utterances)
    with ThreadPoolExecutor() as pool:
        while ahead := list(islice(left, AHEAD)):
            for utterance, (digest, fault) in zip(ahead, pool.map(sound, ahead), strict=True):
                yield utterance, digest, fault


def sound(utterance: Utterance) -> tuple[str | None, str]:
    try:
        return decode(utterance.audio, utterance.offset, utterance.duration).digest, ""
    except AudioError as e:
        return None, f"{e.reason}: {e}"
