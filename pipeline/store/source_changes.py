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
from coat.pipeline.store.unit_table import UnitTable

AHEAD = 1024  # utterances that wait for a decoder


@dataclass(frozen=True)
class SourceChange:
    """A row whose audio sounds different from what was extracted, or cannot be decoded any more."""

    expert: str
    fingerprint: str
    id: str
    message: str

    def __str__(self) -> str:
        return f"{self.expert}/{self.fingerprint}: {self.id}: {self.message}"


@dataclass(frozen=True)
class ExtractedSources:
    """The sounds that the intact units of one target set were extracted from."""

    expert: str
    fingerprint: str
    digests: Mapping[str, str | None]  # Clip.digest by Utterance.digest


def source_digests(targets: TargetSet, intact: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """Clip.digest by Utterance.digest. `intact`: the done.json of each unit that counts."""
    oldest_first = UnitTable.of(intact)
    return {row.digest: row.source for unit in oldest_first for row in targets.read_rows(unit)}


def find_changes(manifest: Manifest, extracted: Sequence[ExtractedSources]) -> Iterator[SourceChange]:
    """Each utterance is decoded once, however many experts were run on it."""
    wanted = (u for u in manifest if any(e.digests.get(u.digest) for e in extracted))
    for u, now, fault in current_digests(wanted):
        for e in extracted:
            then = e.digests.get(u.digest)
            if then and now != then:
                how = f"cannot be heard any more ({fault})" if now is None else "sounds different from what was heard"
                yield SourceChange(e.expert, e.fingerprint, u.id, f"{u.audio}: {how}")


def current_digests(utterances: Iterable[Utterance]) -> Iterator[tuple[Utterance, str | None, str]]:
    """Each with the digest of its sound as it is now, in order; None and why, where it cannot be decoded."""
    left = iter(utterances)
    with ThreadPoolExecutor() as pool:
        while ahead := list(islice(left, AHEAD)):
            for utterance, (digest, fault) in zip(ahead, pool.map(digest_or_fault, ahead), strict=True):
                yield utterance, digest, fault


def digest_or_fault(utterance: Utterance) -> tuple[str | None, str]:
    try:
        return decode(utterance.audio, utterance.offset, utterance.duration).digest, ""
    except AudioError as e:
        return None, f"{e.reason}: {e}"
