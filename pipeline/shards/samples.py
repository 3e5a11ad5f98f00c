"""One sample as the members of a tar: audio, text and targets. N frames, D dim, T samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coat.manifests import storage
from coat.manifests.audio.clip import AudioError
from coat.manifests.targets.members import to_members
from coat.manifests.targets.reduction import Reduction
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.gathering.frames import GatheredFrames, Source
from coat.pipeline.gathering.pieces import piece_frames
from coat.pipeline.gathering.shuffle import Region, region_places
from coat.pipeline.gathering.spool import Spool
from coat.pipeline.shards.audio import GatheredAudio
from coat.pipeline.shards.plan import PlannedSample
from coat.pipeline.shards.recipe import Recipe


@dataclass(frozen=True)
class SampleSettings:
    """What is the same for all samples of a set."""

    recipe: Recipe
    reductions: Mapping[str, Reduction]  # of targets, by expert


@dataclass(frozen=True)
class SampleMembers:
    """Members of one sample, and what samples.parquet says of it."""

    members: dict[str, bytes]
    seconds: float
    source: str | None  # digest of the whole utterance's sound
    frames: dict[str, int]
    characters: int


class SampleParts:
    """What samples are made of, gathered: frames unit by unit, or from `shuffled`; audio file by file."""

    def __init__(
        self,
        samples: Sequence[PlannedSample],
        sources: Mapping[str, Source],
        settings: SampleSettings,
        spool: Spool,
        shuffled: Sequence[Region] = (),
    ) -> None:
        self.frames = GatheredFrames(sources, spool)
        self.audio = GatheredAudio(settings.recipe, spool)
        with_audio = [sample for sample in samples if not sample.utterance.text_only]
        if shuffled:
            frame_bytes = {name: self.frames.frame_bytes(name) for name in sources}
            for region in shuffled:
                self.frames.places.update(region_places(region, frame_bytes))
        elif settings.recipe.layout == "joint":
            self.frames.gather((name, row) for sample in with_audio for name, row in sample.rows.items())
        if settings.recipe.audio != "none":
            self.audio.gather(with_audio)


def build_sample(
    sample: PlannedSample, parts: SampleParts, specs: Mapping[str, TargetSpec], settings: SampleSettings
) -> SampleMembers:
    """AudioError where it cannot be written: no audio, or not the audio that the experts heard."""
    u, recipe = sample.utterance, settings.recipe
    if u.text_only:
        record = text_record(sample) | {"duration": 0.0, "audio": None}
        return SampleMembers({"json": storage.to_json(record, indent=None)}, 0.0, None, {}, count_characters(record))
    if recipe.audio == "none":
        members: dict[str, bytes] = {}
        seconds, source = seconds_and_digest_of_targets(sample)
    else:
        audio = parts.audio.take(sample)
        members, seconds, source = {audio.suffix: audio.data}, audio.seconds, audio.source
    frame_ranges = {}
    for name, row in sample.rows.items():
        if source in (row.source, None):
            frame_ranges[name] = piece_frames(row, specs[name].rate_hz, sample.start, sample.seconds)
        elif recipe.missing != "mask":
            raise AudioError("changed", f"{u.audio}: its sound changed since {name} was extracted; extract it anew")
    record = text_record(sample) | {"duration": round(seconds, 6)}
    if sample.seconds is not None:
        record |= {"utterance": u.id, "start": sample.start}
    if recipe.audio == "none":
        record["audio"] = {"path": u.audio, "offset": round(u.offset + sample.start, 6), "duration": round(seconds, 6)}
    frames = {}
    if recipe.layout == "joint":
        starts = {}  # seconds of the centre of frame 0, in the piece
        for name, (first, stop) in frame_ranges.items():
            extracted_ND = parts.frames.frames(name, sample.rows[name], first, stop)
            reduction = settings.reductions.get(name)
            target_members, frames[name] = to_members(name, extracted_ND, reduction)
            members |= target_members
            starts[name] = round(first_frame_s(specs[name], reduction, first) - sample.start, 9)
        record["targets"] = frames
        if sample.seconds is not None:
            record["starts"] = starts
    members["json"] = storage.to_json(record, indent=None)
    return SampleMembers(members, seconds, source, frames, count_characters(record))


def count_characters(record: Mapping[str, Any]) -> int:
    return sum(len(str(record[k] or "")) for k in ("text", "prompt", "response"))


def first_frame_s(spec: TargetSpec, reduction: Reduction | None, first: int) -> float:
    """Seconds into the utterance of the centre of frame 0 of targets that begin with the extracted frame `first`."""
    return (reduction.rate if reduction else spec).start_s + first / spec.rate_hz


def text_record(sample: PlannedSample) -> dict[str, Any]:
    """Text and answers belong to the whole utterance: a piece of it keeps the prompt, and is for distillation alone."""
    u, is_whole = sample.utterance, sample.seconds is None
    return {
        "id": sample.id,
        "key": sample.key,
        "text": u.text if is_whole else None,
        "prompt": u.prompt,
        "response": u.response if is_whole else None,
        "choices": list(u.choices) if is_whole else [],
        "targets": {},
        "extra": {k: v for k, v in u.extra.items() if is_whole or k != "turns"},
    }


def seconds_and_digest_of_targets(sample: PlannedSample) -> tuple[float, str | None]:
    """As the store has them; the audio is not opened."""
    rows = list(sample.rows.values())
    whole_s = rows[0].seconds if rows else sample.utterance.duration
    if whole_s is None:
        raise AudioError("span", f"{sample.utterance.audio}: no duration in the manifest, and no target that tells it")
    sources = {row.source for row in rows}
    if len(sources) > 1:
        raise AudioError("changed", f"{sample.utterance.audio}: experts heard different sounds; extract it anew")
    seconds = whole_s if sample.seconds is None else min(sample.seconds, whole_s - sample.start)
    return seconds, next(iter(sources), None)
