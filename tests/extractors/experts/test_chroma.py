from typing import Any

import librosa
import numpy as np
import pytest

from coat.extractors import Expert, Options, create
from coat.manifests import InputError
from tests.extractors.conformance.conformance import ExpertConformance, loaded, noise, tone

RATE = 22050
C_MAJOR = {"chroma_c": 261.626, "chroma_e": 329.628, "chroma_g": 391.995}  # Hz: C4, E4, G4


class TestChroma(ExpertConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        return loaded("chroma")


@pytest.fixture(scope="module")
def expert() -> Expert:
    return loaded("chroma")


def sine(hz: float, seconds: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def test_equals_librosa(expert: Expert) -> None:
    x = np.concatenate([noise(0.6, RATE), tone(1.3031, RATE, hz=311.0)])
    (frames,) = expert.extract([x])
    magnitude = np.abs(librosa.cqt(x, sr=RATE))
    chroma = librosa.feature.chroma_cqt(y=x, sr=RATE, bins_per_octave=12, tuning=0.0)
    assert frames.shape == (magnitude.shape[1], 96)
    np.testing.assert_allclose(frames[:, :12], chroma.T, atol=1e-6)
    np.testing.assert_allclose(10 ** (frames[:, 12:] / 20), np.maximum(magnitude.T, 1e-5), rtol=1e-4)
    np.testing.assert_allclose(expert.spec.times(len(frames)), librosa.times_like(magnitude, sr=RATE), atol=1e-9)


def test_a_chord_has_its_pitch_classes_and_its_notes(expert: Expert) -> None:
    chord = np.asarray(np.mean([sine(hz) for hz in C_MAJOR.values()], axis=0), dtype=np.float32)
    (frames,) = expert.extract([chord])
    middle = dict(zip(expert.spec.channels, frames[len(frames) // 2], strict=True))
    classes = sorted(expert.spec.channels[:12], key=lambda c: -middle[c])
    assert set(classes[:3]) == set(C_MAJOR)
    assert middle[classes[2]] > 1.5 * middle[classes[3]], "half a note is heard by the filter of the next semitone"
    notes = sorted(expert.spec.channels[12:], key=lambda c: -middle[c])
    assert set(notes[:3]) == {"cqt_c4", "cqt_e4", "cqt_g4"}


@pytest.mark.parametrize(("note", "hz"), [("c1", 32.703), ("a4", 440.0), ("b7", 3951.07)])
def test_a_sine_reads_what_the_docstring_says(expert: Expert, note: str, hz: float) -> None:
    (frames,) = expert.extract([sine(hz) * np.float32(0.5)])
    samples = 17.33 * RATE / hz
    found = frames[len(frames) // 2, expert.spec.channels.index(f"cqt_{note}")]
    assert found == pytest.approx(20 * np.log10(0.5 / 2) + 10 * np.log10(samples), abs=0.3)


@pytest.mark.parametrize("hz", [65.406, 261.626, 1046.5])
def test_a_note_begins_where_the_spec_says(expert: Expert, hz: float) -> None:
    """At its onset, a filter that is centred there has heard half of the note: 6 dB below the whole."""
    x = np.concatenate([np.zeros(RATE + 100, dtype=np.float32), sine(hz)])
    (frames,) = expert.extract([x])
    band = frames[:, 12:][:, frames[-60, 12:].argmax()]
    first = int(np.flatnonzero(band > np.median(band[90:120]) - 6.02)[0])
    times = expert.spec.times(len(frames))
    assert times[first - 1] - 1 / expert.spec.rate_hz <= (RATE + 100) / RATE <= times[first] + 1 / expert.spec.rate_hz


def test_silence_has_no_pitch_class(expert: Expert) -> None:
    (frames,) = expert.extract([np.zeros(RATE, dtype=np.float32)])
    assert np.abs(frames[:, :12]).max() == 0
    np.testing.assert_allclose(frames[:, 12:], -100, atol=1e-3)


@pytest.mark.parametrize("option", [{"checkpoint": "x"}, {"layer": "3"}, {"precision": "bfloat16"}, {"compile": True}])
def test_options_without_use_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--expert chroma: takes no --{next(iter(option))}"):
        create("chroma", Options(**option))
