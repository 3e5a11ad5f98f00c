"""What is checked of one sample: its record, its audio, its targets. InputError says what is wrong.

Each check takes what it knows out of `members`; what is left is of nobody. N frames, D dim.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import soundfile

from coat.manifests.errors import InputError
from coat.manifests.shards.info import ExpertInfo
from coat.manifests.targets.coding import VALUES
from coat.manifests.targets.members import MEMBER_PARTS, suffix_of
from coat.pipeline.shards.audio import AUDIO_SUFFIXES

FLAC_SLACK_S = 0.001  # durations are rounded, and resampled audio to a sample
FILE_SLACK_S = 0.1  # of MP3 and the like, whose headers count padding
# How far a target may reach beyond its audio, or stay behind it: an expert's last window may be padded or left out.
TARGET_SLACK_S, TARGET_SLACK_FRAMES = 1.0, 2


def check_record(key: str, members: dict[str, bytes], row: Mapping[str, Any] | None) -> dict[str, Any]:
    """The sample's .json, parsed."""
    try:
        record = json.loads(members.pop("json"))
        duration, targets = float(record["duration"]), dict(record["targets"])
    except (KeyError, ValueError, TypeError) as e:
        raise InputError(f"{key}: no whole .json ({e!r})") from e
    if record.get("key") != key or (row and (record.get("id"), duration) != (row["id"], row["duration"])):
        raise InputError(f"{key}: its .json is of another sample")
    return {**record, "duration": duration, "targets": targets}


def check_audio(key: str, members: dict[str, bytes], record: Mapping[str, Any], form: str) -> None:
    if record.get("audio", "") is None:  # text alone
        return
    if form == "none":
        if not isinstance(record.get("audio"), dict):
            raise InputError(f"{key}: its .json does not name its audio")
        return
    suffix = next((s for s in dict.fromkeys(["flac", *AUDIO_SUFFIXES.values()]) if s in members), "")
    if not suffix or (form == "flac" and suffix != "flac"):
        raise InputError(f"{key}: no audio member")
    try:
        info = soundfile.info(io.BytesIO(members.pop(suffix)))
    except soundfile.LibsndfileError as e:
        raise InputError(f"{key}: its .{suffix} cannot be decoded ({e})") from e
    seconds = info.frames / info.samplerate
    if abs(seconds - record["duration"]) > (FLAC_SLACK_S if suffix == "flac" else FILE_SLACK_S):
        raise InputError(f"{key}: {seconds:.3f} s of audio, but its .json says {record['duration']:.3f} s")


def check_targets(
    key: str,
    members: dict[str, bytes],
    experts: Mapping[str, ExpertInfo],
    frames: Mapping[str, int | None],
    seconds: float | None,
) -> None:
    """Each target that should be there has the shape that its spec and the audio ask for.

    `frames`: how many each expert's target has, None where that is not known.
    """
    for name, expected in frames.items():
        if name not in experts:
            raise InputError(f"{key}: names targets of {name}, which the index does not know")
        spec = experts[name].spec
        if suffix_of(name, VALUES) not in members:
            raise InputError(f"{key}: no .{name}.npy, but it should be there")
        try:
            frames_ND = experts[name].decode(members)
        except ValueError as e:
            raise InputError(f"{key}: target of {name}: {e}") from e
        for part in MEMBER_PARTS:
            members.pop(suffix_of(name, part), None)
        if expected is not None and len(frames_ND) != expected:
            raise InputError(f"{key}: .{name}.npy has {len(frames_ND)} frames; {expected} are promised")
        slack = TARGET_SLACK_S + TARGET_SLACK_FRAMES / spec.rate_hz
        if seconds is not None and abs(len(frames_ND) / spec.rate_hz - seconds) > slack:
            raise InputError(f"{key}: .{name}.npy has {len(frames_ND)} frames for {seconds:.3f} s of audio")
