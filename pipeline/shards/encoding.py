"""Samples to bytes, a batch at a time: one worker makes all samples of a batch and hands them back."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from coat.manifests.audio.clip import AudioError
from coat.manifests.shards.tar import sample_bytes
from coat.pipeline.shards.audio import decode_utterance
from coat.pipeline.shards.plan import PlannedSample
from coat.pipeline.shards.samples import SampleSettings, build_sample
from coat.pipeline.store.target_set import TargetSet

BATCH_BYTES = 16 * 2**20  # about; what is redone after a kill, and what one worker holds


@dataclass(frozen=True)
class EncodingJob:
    """Samples that follow each other; small enough to send anywhere."""

    set_urls: Mapping[str, str]
    samples: tuple[PlannedSample, ...]
    settings: SampleSettings


@dataclass(frozen=True)
class EncodedSample:
    """Its bytes in a tar, and its row of samples.parquet but the place in the tar."""

    data: bytes
    row: dict[str, Any]


def encode_batch(job: EncodingJob) -> tuple[EncodedSample | str, ...]:
    """What came of each sample: its bytes, or why it cannot be written."""
    decode_utterance.cache_clear()  # a file may have been written anew since the last build
    sets = {name: open_target_set(url) for name, url in job.set_urls.items()}
    return tuple(encode_sample(sample, sets, job.settings) for sample in job.samples)


def encode_sample(
    sample: PlannedSample, sets: Mapping[str, TargetSet], settings: SampleSettings
) -> EncodedSample | str:
    try:
        built = build_sample(sample, sets, settings)
    except AudioError as e:
        return f"{e.reason}: {e}"
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
    return EncodedSample(sample_bytes(sample.key, built.members), row)


@lru_cache(maxsize=64)
def open_target_set(url: str) -> TargetSet:
    return TargetSet.open(url)
