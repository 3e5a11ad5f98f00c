"""On recordings: COAT_REAL_DIR has a manifest.jsonl and audio, COAT_WHISPER_DIR a Whisper in transformers' format."""

import os
from pathlib import Path

import numpy as np
import pytest

from coat.extractors import Expert, Frames, Waveform, extract_windows
from coat.manifests import Manifest, decode
from tests.extractors.conformance import loaded
from tests.extractors.test_whisper import plain_loop

pytestmark = pytest.mark.real


def folder(variable: str) -> Path:
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set")
    return Path(os.environ[variable])


@pytest.fixture(scope="module")
def clips() -> dict[str, Waveform]:
    """By id, 16 kHz."""
    manifest = Manifest.read(str(folder("COAT_REAL_DIR") / "manifest.jsonl"))
    return {u.id: decode(u.audio, u.offset, u.duration).at(16000) for u in manifest}


def extract(expert: Expert, clips: dict[str, Waveform]) -> dict[str, Frames]:
    long_enough = {name: x for name, x in clips.items() if len(x) >= expert.spec.min_samples}
    return dict(zip(long_enough, extract_windows(expert, [*long_enough.values()]), strict=True))


def speech(found: dict[str, Frames]) -> dict[str, Frames]:
    return {name: frames for name, frames in found.items() if name.startswith("speech")}


def test_whisper_equals_a_plain_loop_on_every_clip(clips: dict[str, Waveform]) -> None:
    """As stored in float16, within 1e-3 of the length of each frame's own vector."""
    path = folder("COAT_WHISPER_DIR")
    worst = 0.0
    for name, frames in extract(loaded("whisper", checkpoint=str(path)), clips).items():
        reference = plain_loop(path, clips[name])
        assert frames.shape == reference.shape
        error = np.linalg.norm(frames.astype(np.float16).astype(np.float32) - reference, axis=1)
        worst = max(worst, float((error / np.linalg.norm(reference, axis=1)).max()))
    print(f"whisper: largest relative error of a frame {worst:.2e}")
    assert worst < 1e-3


EVENTS = {
    "perc_bell": {"Bell", "Tuning fork", "Church bell", "Chime"},
    "perc_till": {"Ding", "Bell", "Cash register", "Ding-dong"},
    "drum_cowbell": {"Cowbell", "Ding", "Clang"},
    "drum_roll": {"Drum", "Drum roll", "Snare drum", "Percussion"},
    "drum_snare_hard": {"Drum", "Snare drum", "Percussion"},
    "drum_cymbal_open": {"Cymbal", "Hi-hat"},
    "loop_amen": {"Percussion", "Drum", "Drum kit"},
    "misc_crow": {"Crow", "Caw"},
    "misc_burp": {"Burping, eructation"},
    "guit_em9": {"Music", "Guitar", "Musical instrument"},
    "ambi_piano": {"Music", "Piano", "Musical instrument"},
}
UNSPECIFIC = {"Silence", "Music"}


def test_yamnet_hears_what_there_is(clips: dict[str, Waveform]) -> None:
    expert = loaded("yamnet")
    found = extract(expert, clips)
    for name, expected in EVENTS.items():
        highest = found[name].max(axis=0)
        order = [expert.spec.channels[i] for i in np.argsort(-highest)]
        top = [c for c in order if c not in UNSPECIFIC - expected][:3]
        print(f"yamnet: {name}: {', '.join(top)}")
        assert expected & set(top), f"{name}: {top}"
    voices = speech(found).values()
    right = sum(expert.spec.channels[frames.mean(axis=0).argmax()] == "Speech" for frames in voices)
    print(f"yamnet: Speech is highest on {right} of {len(voices)} clips of speech")
    assert right >= 0.9 * len(voices)


def test_vad_tells_speech_from_other_sounds(clips: dict[str, Waveform]) -> None:
    found = extract(loaded("vad"), clips)
    share = {name: float((frames > 0.5).mean()) for name, frames in found.items()}
    spoken = [share[name] for name in speech(found)]
    other = [value for name, value in share.items() if name not in speech(found)]
    print(
        f"vad: speech in {np.mean(spoken):.2f} of frames of speech (least {min(spoken):.2f}), {np.mean(other):.2f} else"
    )
    assert np.median(spoken) > 0.5
    assert np.mean(other) < 0.15


def test_pitch_of_speech_is_that_of_voices(clips: dict[str, Waveform]) -> None:
    for name, frames in speech(extract(loaded("pitch"), clips)).items():
        voiced = frames[frames[:, 1] > 0.5]
        hz = float(2 ** np.median(voiced[:, 0]))
        assert len(voiced) > 0.2 * len(frames), name
        assert 60 < hz < 350, f"{name}: {hz:.0f} Hz"


def test_pitch_and_prosody_agree_in_value_and_time(clips: dict[str, Waveform]) -> None:
    """Two independent trackers of f0, compared at equal times: semitones from 27.5 Hz, and log2 Hz."""
    pitch, prosody = loaded("pitch"), loaded("prosody")
    f0_at, errors = prosody.spec.channels.index("F0semitoneFrom27.5Hz_sma3nz"), []
    mine, theirs = extract(pitch, clips), extract(prosody, clips)
    for name in speech(theirs):
        a, b = mine[name], theirs[name][:, f0_at]
        times = prosody.spec.times(len(b))
        log2_f0 = np.interp(times, pitch.spec.times(len(a)), a[:, 0])
        voiced = (np.interp(times, pitch.spec.times(len(a)), a[:, 1]) > 0.8) & (b > 0)
        errors.append(np.abs(12 * (log2_f0 - np.log2(27.5)) - b)[voiced])
    median = float(np.median(np.concatenate(errors)))
    print(f"pitch and prosody: median difference {median:.2f} semitones")
    assert median < 0.5


@pytest.mark.parametrize("name", ["mel", "pitch", "vad", "yamnet", "prosody"])
def test_every_clip_gives_finite_frames_that_cover_it(name: str, clips: dict[str, Waveform]) -> None:
    expert = loaded(name)
    found = extract(expert, clips)
    assert len(found) >= 0.9 * len(clips)
    for clip, frames in found.items():
        assert np.isfinite(frames.astype(np.float16)).all(), clip
        seconds = len(clips[clip]) / expert.spec.sample_rate
        assert seconds - expert.spec.times(len(frames))[-1] <= expert.spec.start_s + 2 / expert.spec.rate_hz


# Recordings of one note at a time, with what they hold. Left out: chords (guit_em9), strings ringing on together
# (guit_harmonics), drums, noises and loops.
NOTES = ("guit_e_slide", "tbd_highkey_c4", "tbd_voctone", "ambi_piano", "guit_harmonics", "bass_voxy_hit_c")


def at_times(expert: Expert, frames: Frames, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log2 f0 and voicing, between frames as on a straight line."""
    own = expert.spec.times(len(frames))
    return np.interp(times, own, frames[:, 0]), np.interp(times, own, frames[:, 1])


def test_trackers_of_f0_agree_on_notes() -> None:
    manifest = Manifest.read(str(folder("COAT_REAL_DIR") / "manifest.jsonl"))
    notes = {u.id: decode(u.audio, u.offset, u.duration) for u in manifest if u.id in NOTES}
    experts = [loaded(name) for name in ("pitch", "crepe", "pyin")]
    for name, audio in notes.items():
        found = [extract_windows(e, [audio.at(e.spec.sample_rate)])[0] for e in experts]
        times = experts[2].spec.times(len(found[2]))
        f0_3N, voicing_3N = np.stack([at_times(e, f, times) for e, f in zip(experts, found, strict=True)], axis=1)
        voicing_3N[2] = found[2][:, 2]
        voiced_N = (voicing_3N > 0.5).all(axis=0)
        print(
            name,
            voiced_N.sum(),
            len(times),
            (voicing_3N > 0.5).mean(axis=1),
            2 ** np.median(f0_3N[:, voiced_N], axis=1),
        )
        for a, b in ((0, 1), (0, 2), (1, 2)):
            cents = 1200 * np.abs(f0_3N[a] - f0_3N[b])[voiced_N]
            print("   ", experts[a].name, experts[b].name, np.median(cents), (cents <= 50).mean())
