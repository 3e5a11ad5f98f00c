"""`coat shards stats`: what is in a shard set, from its indices alone."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute

from coat.manifests.shards.index import ShardIndex
from coat.manifests.shards.reading import read_samples
from coat.manifests.shards.samples_table import read_samples_table

pc: Any = pyarrow.compute

AUDIO_TOKENS_PER_SECOND = 25  # of Qwen2-Audio, Qwen2.5-Omni and Audio Flamingo 3 alike


@dataclass(frozen=True)
class ExpertStats:
    samples: int
    missing: int
    frames: int
    frames_per_second: float
    bytes: int  # of its values


@dataclass(frozen=True)
class ShardStats:
    shards: int
    samples: int
    pieces: int  # of utterances that were cut
    hours: float
    shortest_s: float
    longest_s: float
    bytes: int
    left_out: int
    audio_tokens: int  # about, as the students hear it
    characters: int
    text_tokens: int | None  # of text, prompt and response; counted where a tokenizer is given
    experts: dict[str, ExpertStats]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def shard_stats(path: str, count_tokens: Callable[[str], int] | None = None) -> ShardStats:
    """`count_tokens`: reads the texts, and so the whole set."""
    index = ShardIndex.read(path)
    table = index.table()
    durations = table["duration"]
    return ShardStats(
        shards=len(index.shards),
        samples=index.samples,
        pieces=pc.sum(pc.invert(table["whole"])).as_py() or 0,
        hours=index.seconds / 3600,
        shortest_s=pc.min(durations).as_py(),
        longest_s=pc.max(durations).as_py(),
        bytes=index.bytes,
        left_out=index.skipped,
        audio_tokens=round(index.seconds * AUDIO_TOKENS_PER_SECOND),
        characters=pc.sum(table["characters"]).as_py() or 0,
        text_tokens=sum(count_tokens(text) for text in texts(index)) if count_tokens else None,
        experts={name: expert_stats(index, name) for name in index.experts},
    )


def expert_stats(index: ShardIndex, name: str) -> ExpertStats:
    sidecar, info = index.sidecars.get(name), index.experts[name]
    table = read_samples_table(sidecar.path, sidecar.samples_xxh3) if sidecar else index.table()
    frames = pc.sum(table[f"frames.{name}"]).as_py() or 0
    nbytes = round(frames * info.bytes_per_frame)
    return ExpertStats(info.samples, index.samples - info.samples, frames, info.spec.rate_hz, nbytes)


def texts(index: ShardIndex) -> Iterator[str]:
    import json

    for shard in index.shards:
        for sample in read_samples(index, shard, experts=()):
            record = json.loads(sample.members["json"])
            yield from (record[k] for k in ("text", "prompt", "response") if record[k])
