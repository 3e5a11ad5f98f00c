"""Samples to bytes, a block at a time: one worker gathers what the samples of a block are made of, and encodes them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.audio.clip import AudioError
from coat.manifests.shards.tar import sample_bytes
from coat.pipeline.gathering.frames import Source
from coat.pipeline.gathering.shuffle import Region
from coat.pipeline.gathering.spool import Spool
from coat.pipeline.shards.plan import PlannedSample
from coat.pipeline.shards.samples import SampleParts, SampleSettings, build_sample

BlockData = Path | NDArray[np.uint8]  # bytes of samples one after the other: a file of this machine, or in memory


@dataclass(frozen=True)
class EncodingJob:
    """Samples that follow each other; small enough to send anywhere. `path`: where their bytes go; None: memory."""

    samples: tuple[PlannedSample, ...]
    sources: Mapping[str, Source]
    settings: SampleSettings
    path: Path | None


@dataclass(frozen=True)
class EncodedSample:
    """Its bytes in a tar, and its row of samples.parquet but the place in the tar."""

    data: bytes
    row: dict[str, Any]


@dataclass(frozen=True)
class SampleOutcome:
    """What came of a sample: its length and its row of samples.parquet, or why it cannot be written."""

    id: str
    identity: bytes  # all that decides its bytes
    length: int = 0
    row: Mapping[str, Any] | None = None
    reason: str = ""


def encode_block(job: EncodingJob, *frames: Region) -> tuple[list[SampleOutcome], BlockData]:
    """The outcomes of all samples, and the bytes of those that can be written. `frames`: of a shuffle; all, or none."""
    recipe = job.settings.recipe
    outcomes: list[SampleOutcome] = []
    parts: list[bytes] = []
    file = job.path.open("wb") if job.path else None
    try:
        all_encoded = encode_samples(job.samples, job.sources, job.settings, frames)
        for sample, encoded in zip(job.samples, all_encoded, strict=True):
            identity = sample.identity(recipe.has_paths)
            if isinstance(encoded, str):
                outcomes.append(SampleOutcome(sample.id, identity, reason=encoded))
                continue
            outcomes.append(SampleOutcome(sample.id, identity, len(encoded.data), encoded.row))
            file.write(encoded.data) if file else parts.append(encoded.data)
    finally:
        if file:
            file.close()
    return outcomes, job.path or np.frombuffer(b"".join(parts), np.uint8)


def encode_samples(
    samples: Sequence[PlannedSample],
    sources: Mapping[str, Source],
    settings: SampleSettings,
    frames: Sequence[Region] = (),
) -> Iterator[EncodedSample | str]:
    """Of each sample its bytes, or why it cannot be written. `frames`: of a shuffle; none: from the store."""
    specs = {name: source.spec for name, source in sources.items()}
    with Spool() as spool:
        parts = SampleParts(samples, sources, settings, spool, frames)
        for sample in samples:
            try:
                built = build_sample(sample, parts, specs, settings)
            except AudioError as e:
                yield f"{e.reason}: {e}"
                continue
            row = {
                "key": sample.key,
                "id": sample.id,
                "digest": sample.utterance.digest,
                "source": built.source,
                "duration": round(built.seconds, 6),
                "start": sample.start,
                "whole": sample.seconds is None,
                "characters": built.characters,
                "frames": built.frames,
            }
            yield EncodedSample(sample_bytes(sample.key, built.members), row)
