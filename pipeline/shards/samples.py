"""One sample as the members of a tar: audio, text and targets. N frames, D dim, T samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coat.manifests import storage
from coat.manifests.audio.clip import AudioError
from coat.manifests.targets.members import to_members
from coat.manifests.targets.reduction import Reduction
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.shards.audio import decode_utterance, encode_flac, original_file, piece_samples
from coat.pipeline.shards.pieces import piece_frames
from coat.pipeline.shards.plan import PlannedSample
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.store.target_set import TargetSet


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


def build_sample(sample: PlannedSample, sets: Mapping[str, TargetSet], settings: SampleSettings) -> SampleMembers:
    """AudioError where it cannot be written: no audio, or not the audio that the experts heard."""
    u, recipe = sample.utterance, settings.recipe
    if u.text_only:
        record = text_record(sample) | {"duration": 0.0, "audio": None}
        return SampleMembers({"json": storage.to_json(record, indent=None)}, 0.0, None, {}, count_characters(record))
    if recipe.audio == "none":
        members: dict[str, bytes] = {}
        seconds, source = seconds_and_digest_of_targets(sample)
    else:
        members, seconds, source = audio_member(sample, recipe)
    frame_ranges = {}
    for name, row in sample.rows.items():
        if source in (row.source, None):
            frame_ranges[name] = piece_frames(row, sets[name].spec.rate_hz, sample.start, sample.seconds)
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
            extracted_ND = sets[name].read_row(sample.rows[name]).frames[first:stop]
            reduction = settings.reductions.get(name)
            target_members, frames[name] = to_members(name, extracted_ND, reduction)
            members |= target_members
            starts[name] = round(first_frame_s(sets[name].spec, reduction, first) - sample.start, 9)
        record["targets"] = frames
        if sample.seconds is not None:
            record["starts"] = starts
    members["json"] = storage.to_json(record, indent=None)
    return SampleMembers(members, seconds, source, frames, count_characters(record))


def audio_member(sample: PlannedSample, recipe: Recipe) -> tuple[dict[str, bytes], float, str]:
    """The audio by its suffix, its seconds, and the digest of the whole utterance's sound."""
    u = sample.utterance
    decoded = decode_utterance(u.audio, u.offset, u.duration, recipe.sample_rate if recipe.audio == "flac" else None)
    seconds = min(sample.seconds or decoded.seconds, decoded.seconds - sample.start)
    if seconds <= 0:
        raise AudioError("changed", f"{u.audio}: it is shorter than when it was extracted; extract it anew")
    member = original_file(u, decoded) if recipe.audio == "original" and sample.seconds is None else {}
    member = member or {"flac": encode_flac(piece_samples(decoded, sample), decoded.rate)}
    return member, seconds, decoded.digest


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
