"""One sample as the members of a tar: audio, text and targets. N frames, D dim, T samples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coat.manifests import storage
from coat.manifests.audio.clip import AudioError
from coat.manifests.targets.members import to_members
from coat.manifests.targets.reduction import Reduction
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.shards.audio import cut, flac, hear, original
from coat.pipeline.shards.plan import Sample
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.shards.segments import span
from coat.pipeline.store.target_set import TargetSet


@dataclass(frozen=True)
class How:
    """What one sample needs besides its row."""

    recipe: Recipe
    reductions: Mapping[str, Reduction]  # of targets, by expert


@dataclass(frozen=True)
class Made:
    """Members of one sample, and what samples.parquet says of it."""

    members: dict[str, bytes]
    seconds: float
    source: str | None
    frames: dict[str, int]
    characters: int


def make(sample: Sample, sets: Mapping[str, TargetSet], how: How) -> Made:
    """AudioError where it cannot be written: no audio, or not the audio that the experts heard."""
    u = sample.utterance
    if u.text_only:
        record = text_of(sample) | {"duration": 0.0, "audio": None}
        return Made({"json": storage.to_json(record, indent=None)}, 0.0, None, {}, characters_of(record))
    audio: dict[str, bytes] = {}
    if how.recipe.audio == "none":
        seconds, source = unheard(sample)
    else:
        heard = hear(u.audio, u.offset, u.duration, how.recipe.sample_rate if how.recipe.audio == "flac" else None)
        seconds, source = min(sample.seconds or heard.seconds, heard.seconds - sample.start), heard.digest
        if seconds <= 0:
            raise AudioError("changed", f"{u.audio}: it is shorter than when it was extracted; extract it anew")
        audio = original(u, heard) if how.recipe.audio == "original" and sample.seconds is None else {}
        audio = audio or {"flac": flac(cut(heard, sample), heard.rate)}
    spans = {}
    for name, row in sample.rows.items():
        if source in (row.source, None):
            spans[name] = span(row, sets[name].spec.rate_hz, sample.start, sample.seconds)
        elif how.recipe.missing != "mask":
            raise AudioError("changed", f"{u.audio}: its sound changed since {name} was extracted; extract it anew")
    record = text_of(sample) | {"duration": round(seconds, 6)}
    if sample.seconds is not None:
        record |= {"utterance": u.id, "start": sample.start}
    if how.recipe.audio == "none":
        record["audio"] = {"path": u.audio, "offset": round(u.offset + sample.start, 6), "duration": round(seconds, 6)}
    members, frames = dict(audio), {}
    if how.recipe.layout == "joint":
        for name, (first, stop) in spans.items():
            extracted_ND = sets[name].read_row(sample.rows[name]).frames[first:stop]
            parts, frames[name] = to_members(name, extracted_ND, how.reductions.get(name))
            members |= parts
        record["targets"] = frames
        if sample.seconds is not None:
            starts = {n: start_of(sets[n].spec, how.reductions.get(n), first) for n, (first, _) in spans.items()}
            record["starts"] = {n: round(t - sample.start, 9) for n, t in starts.items()}  # of frame 0, in the piece
    members["json"] = storage.to_json(record, indent=None)
    return Made(members, seconds, source, frames, characters_of(record))


def characters_of(record: Mapping[str, Any]) -> int:
    return sum(len(str(record[k] or "")) for k in ("text", "prompt", "response"))


def start_of(spec: TargetSpec, reduction: Reduction | None, first: int) -> float:
    """Seconds into the utterance of the centre of frame 0 of targets that begin with frame `first` of the extracted."""
    return (reduction.rate if reduction else spec).start_s + first / spec.rate_hz


def text_of(sample: Sample) -> dict[str, Any]:
    """Text and answers are of the whole utterance: a piece of it keeps the prompt, and is distilled only."""
    u, whole = sample.utterance, sample.seconds is None
    return {
        "id": sample.id,
        "key": sample.key,
        "text": u.text if whole else None,
        "prompt": u.prompt,
        "response": u.response if whole else None,
        "choices": list(u.choices) if whole else [],
        "targets": {},
        "extra": {k: v for k, v in u.extra.items() if whole or k != "turns"},
    }


def unheard(sample: Sample) -> tuple[float, str | None]:
    """Seconds and digest as the store has them; the audio is not opened."""
    rows = list(sample.rows.values())
    whole = rows[0].seconds if rows else sample.utterance.duration
    if whole is None:
        raise AudioError("span", f"{sample.utterance.audio}: no duration in the manifest, and no target that tells it")
    sources = {row.source for row in rows}
    if len(sources) > 1:
        raise AudioError("changed", f"{sample.utterance.audio}: experts heard different sounds; extract it anew")
    seconds = whole if sample.seconds is None else min(sample.seconds, whole - sample.start)
    return seconds, next(iter(sources), None)
