"""From a sample's members to sound, texts and targets. BadSample where one of them is broken.

Nothing is unpickled: audio goes through libsndfile, targets through numpy's own format with `allow_pickle=False`, and
both are checked against the index. N frames, D dim.
"""

import io
import json
import math
from collections.abc import Collection, Mapping
from types import UnionType
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from coat.manifests import AudioError, ExpertInfo, InputError, ShardIndex, decode
from coat.manifests.corpus.utterance import parse_turns
from coat.manifests.targets.arrays import BrokenArray
from coat.manifests.targets.members import experts_with_targets
from coat.trainer.data.samples import BadSample, RawSample, Sample

AUDIO_SUFFIXES = ("flac", "wav", "mp3", "ogg", "aiff")
DURATION_SLACK_S = 0.02  # between a sample's json and its sound: half an audio position of Qwen2-Audio


def decode_sample(raw: RawSample, index: ShardIndex, experts: Collection[str] | None = None) -> Sample:
    """Audio, text and targets (of these experts; None: of all) of one sample. BadSample where a member is missing or
    broken."""
    meta = decode_meta(raw)
    texts = decode_texts(raw, meta)
    if texts["text_only"]:
        return Sample(key=raw.key, samples_S=np.zeros(0, np.float32), sample_rate=index.sample_rate, **texts)
    samples_S, rate = decode_audio(raw, meta, index)
    wanted = index.experts if experts is None else {name: index.experts[name] for name in experts}
    targets = {name: decode_target(raw, name, wanted[name]) for name in experts_with_targets(raw.members, wanted)}
    check_stated_sizes(raw, meta, len(samples_S) / rate, targets, wanted)
    return Sample(key=raw.key, samples_S=samples_S, sample_rate=rate, targets=targets, **texts)


def decode_audio(raw: RawSample, meta: Mapping[str, Any], index: ShardIndex) -> tuple[NDArray[np.float32], int]:
    """Mono samples and their rate: of the member or, in a set without audio, of the file that the json names."""
    if index.audio == "none":
        try:
            clip = decode(meta["audio"]["path"], meta["audio"]["offset"], meta["audio"]["duration"])
        except (AudioError, InputError, KeyError, TypeError) as e:
            raise BadSample("no_audio", f"{raw}: the audio that it names cannot be decoded ({e})") from e
        return clip.samples_T, clip.rate
    suffix = next((s for s in AUDIO_SUFFIXES if s in raw.members), None)
    if suffix is None:
        raise BadSample("no_audio", f"{raw}: no audio member; expected .flac")
    try:
        samples, rate = soundfile.read(io.BytesIO(raw.members[suffix]), dtype="float32")
    except soundfile.LibsndfileError as e:
        raise BadSample("broken_audio", f"{raw}: audio cannot be decoded ({e})") from e
    samples_S = np.asarray(samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32), np.float32)
    if not np.isfinite(samples_S).all():  # it would end the run at this step, whenever it is resumed
        raise BadSample("not_finite", f"{raw}: its audio has NaN or infinite samples")
    return samples_S, rate


def decode_meta(raw: RawSample) -> dict[str, Any]:
    if raw.lost:
        raise BadSample("lost", f"{raw} is lost: {raw.lost}")
    try:
        meta = json.loads(raw.members["json"])
    except KeyError as e:
        raise BadSample("no_json", f"{raw}: no .json member") from e
    except ValueError as e:
        raise BadSample("broken_json", f"{raw}: .json is not JSON ({e})") from e
    if not isinstance(meta, dict):
        raise BadSample("broken_json", f"{raw}: .json holds {type(meta).__name__}; expected an object")
    return meta


def decode_texts(raw: RawSample, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a Sample has beside its audio and targets."""
    texts = {name: value_of(raw, meta, name, str) for name in ("text", "prompt", "response")}
    choices = tuple(value_of(raw, {"choices": c}, "choices", str) for c in value_of(raw, meta, "choices", list) or ())
    extra = value_of(raw, meta, "extra", dict) or {}
    try:
        turns = parse_turns(extra.get("turns"))
    except ValueError as e:
        raise BadSample("broken_json", f"{raw}: {e}") from e
    rest = {"turns": turns, "text_only": meta.get("audio", "") is None, "extra": extra}
    return {"id": str(meta.get("id", raw.key)), **texts, "choices": choices, **rest}


def value_of(raw: RawSample, meta: Mapping[str, Any], name: str, kind: type | UnionType) -> Any:
    """A value of a sample's json; None where it has none. BadSample where it is of another type."""
    value = meta.get(name)
    if not isinstance(value, kind | None):
        raise BadSample("broken_json", f"{raw}: {name} is {value!r:.60}; expected {kind}")
    return value


def seconds_of(raw: RawSample, meta: Mapping[str, Any]) -> float | None:
    """Duration as the json has it, if it does."""
    seconds = value_of(raw, meta, "duration", int | float)
    if seconds is not None and not 0 <= seconds < math.inf:  # json.loads takes NaN and Infinity
        raise BadSample("broken_json", f"{raw}: duration is {seconds}; expected seconds")
    return seconds


def check_stated_sizes(
    raw: RawSample,
    meta: Mapping[str, Any],
    seconds: float,
    targets: Mapping[str, NDArray[Any]],
    experts: Collection[str],
) -> None:
    """BadSample where sound or targets are less, or more, than the sample's own json says."""
    stated = seconds_of(raw, meta)
    if stated is not None and abs(stated - seconds) > DURATION_SLACK_S:
        raise BadSample("wrong_duration", f"{raw}: {seconds:.3f} s of audio, but its .json says {stated:.3f} s")
    for name, frames in (value_of(raw, meta, "targets", dict) or {}).items():
        found = len(targets[name]) if name in targets else 0
        if name in experts and found != frames:
            raise BadSample("wrong_target", f"{raw}: {found} frames of {name}, but its .json says {frames}")


def decode_target(raw: RawSample, name: str, expert: ExpertInfo) -> NDArray[np.floating[Any]]:
    """`[N, D]`; frames of NaN are masked. BadSample where its members are not what the index says."""
    try:
        return expert.decode(raw.members)
    except ValueError as e:
        reason = "broken_target" if isinstance(e, BrokenArray) else "wrong_target"
        raise BadSample(reason, f"{raw}: target of {name}: {e}") from e
