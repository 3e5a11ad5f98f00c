"""Making samples: a part is a run of them, made by one worker and handed back whole, as bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from coat.manifests.audio.clip import AudioError
from coat.manifests.shards.tar import sample_bytes
from coat.pipeline.shards.audio import hear
from coat.pipeline.shards.plan import Sample
from coat.pipeline.shards.samples import How, make
from coat.pipeline.store.target_set import TargetSet

PART_BYTES = 16 * 2**20  # about; what is redone after a kill, and what one worker holds


@dataclass(frozen=True)
class PartJob:
    """Samples that follow each other; small enough to send anywhere."""

    set_urls: Mapping[str, str]
    samples: tuple[Sample, ...]
    how: How


@dataclass(frozen=True)
class Piece:
    """One sample of a part: its bytes in a tar, and its row of samples.parquet but the place."""

    data: bytes
    row: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """What came of each sample: a Piece, or why it could not be written."""

    pieces: tuple[Piece | str, ...]


def make_part(job: PartJob) -> Part:
    hear.cache_clear()  # a file may have been written anew since the last build
    sets = {name: open_set(url) for name, url in job.set_urls.items()}
    return Part(tuple(make_piece(sample, sets, job.how) for sample in job.samples))


def make_piece(sample: Sample, sets: Mapping[str, TargetSet], how: How) -> Piece | str:
    try:
        made = make(sample, sets, how)
    except AudioError as e:
        return f"{e.reason}: {e}"
    row = {
        "key": sample.key,
        "id": sample.id,
        "digest": sample.utterance.digest,
        "source": made.source,
        "duration": round(made.seconds, 6),
        "start": sample.start,
        "whole": sample.seconds is None,
        "characters": made.characters,
        "frames": made.frames,
    }
    return Piece(sample_bytes(sample.key, made.members), row)


@lru_cache(maxsize=64)
def open_set(url: str) -> TargetSet:
    return TargetSet.open(url)
