"""Audio that changed after its extraction: the digest of a sound now, beside the one in the store."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import AudioFile, check_span
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_table import UnitTable

JOB_UTTERANCES = 256  # that one worker decodes
RunJobs = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


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


def find_changes(
    manifest: Manifest, extracted: Sequence[ExtractedSources], run_jobs: RunJobs = map
) -> Iterator[SourceChange]:
    """Each utterance is decoded once, however many experts were run on it. `run_jobs` gives the results of jobs in
    their order: here, or by workers.
    """
    wanted = (u for u in manifest if any(e.digests.get(u.digest) for e in extracted))
    for found in run_jobs(current_digests, jobs_of(wanted)):
        for u, now, fault in found:
            for e in extracted:
                then = e.digests.get(u.digest)
                if then and now != then:
                    how = (
                        f"cannot be heard any more ({fault})" if now is None else "sounds different from what was heard"
                    )
                    yield SourceChange(e.expert, e.fingerprint, u.id, f"{u.audio}: {how}")


def jobs_of(utterances: Iterable[Utterance]) -> Iterator[list[Utterance]]:
    left = iter(utterances)
    while job := list(islice(left, JOB_UTTERANCES)):
        yield job


def current_digests(utterances: Sequence[Utterance]) -> list[tuple[Utterance, str | None, str]]:
    """Each with the digest of its sound as it is now, in order; None and why, where it cannot be decoded."""
    by_file: dict[str, list[Utterance]] = {}
    for u in utterances:
        by_file.setdefault(u.audio, []).append(u)
    found: dict[str, tuple[str | None, str]] = {}
    with ThreadPoolExecutor() as pool:
        for of_file in pool.map(digests_of_file, by_file, by_file.values()):
            found |= of_file
    return [(u, *found[u.digest]) for u in utterances]


def digests_of_file(audio: str, utterances: Sequence[Utterance]) -> dict[str, tuple[str | None, str]]:
    """By Utterance.digest. The file is opened, and downloaded, once."""
    found: dict[str, tuple[str | None, str]] = {}
    file: AudioFile | None = None
    for u in sorted(utterances, key=lambda u: u.offset):
        try:
            check_span(audio, u.offset, u.duration)
            file = file or AudioFile(audio)
            found[u.digest] = file.span(u.offset, u.duration).decode().digest, ""
        except AudioError as e:
            found[u.digest] = None, f"{e.reason}: {e}"
    return found
