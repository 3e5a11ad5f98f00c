from typing import Any

import librosa
import numpy as np
import pytest

from coat.extractors import Expert, Options, create, extract_windows
from coat.manifests import InputError
from tests.extractors.conformance.conformance import ExpertConformance, loaded, noise, tone

RATE = 22050


class TestPYin(ExpertConformance):
    seam_window_s = 5.0

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        return loaded("pyin")


@pytest.fixture(scope="module")
def expert() -> Expert:
    return loaded("pyin")


def clip() -> np.ndarray:
    return np.concatenate([noise(0.5, RATE, level=0.01), tone(1.0, RATE, hz=146.0), noise(0.3137, RATE, level=0.01)])


def test_equals_librosa(expert: Expert) -> None:
    """With librosa's own defaults: NaN where unvoiced."""
    x = clip()
    (frames,) = expert.extract([x])
    lowest, highest = (float(librosa.note_to_hz(note)) for note in ("C2", "C7"))
    f0, voiced, probability = librosa.pyin(x, fmin=lowest, fmax=highest)
    assert 40 < voiced.sum() < len(f0) - 15
    np.testing.assert_allclose(2.0 ** frames[voiced, 0], f0[voiced], rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(f0), frames[:, 0] == 0)
    np.testing.assert_array_equal(frames[:, 1], voiced)
    np.testing.assert_allclose(frames[:, 2], probability, atol=1e-6)
    np.testing.assert_allclose(expert.spec.times(len(frames)), librosa.times_like(f0), atol=1e-9)


def test_silence_has_no_f0(expert: Expert) -> None:
    (frames,) = expert.extract([np.zeros(RATE, dtype=np.float32)])
    np.testing.assert_array_equal(frames[:, :2], 0)


def test_a_tone_has_its_pitch_and_its_time(expert: Expert) -> None:
    x = np.zeros(2 * RATE, dtype=np.float32)
    x[RATE // 2 : 3 * RATE // 2] = tone(1.0, RATE, hz=146.0)
    (frames,) = expert.extract([x])
    voiced = frames[:, 1] == 1
    times = expert.spec.times(len(frames))[voiced]
    assert times[0] == pytest.approx(0.5, abs=0.05)
    assert times[-1] == pytest.approx(1.5, abs=0.05)
    inside = frames[voiced][3:-3]
    np.testing.assert_allclose(inside[:, 0], np.log2(146.0), atol=10 / 1200)


def test_windows_agree_with_a_single_pass_on_what_comes_and_goes(expert: Expert) -> None:
    """Where the path could differ: tones that change every 0.3 s, with noise between."""
    rng = np.random.default_rng(3)
    parts = [
        p for _ in range(40) for p in (tone(0.3, RATE, hz=80 * 2 ** rng.uniform(0, 3)), noise(0.2, RATE, level=0.02))
    ]
    x = np.concatenate(parts)
    (joined,), (single,) = extract_windows(expert, [x]), expert.extract([x])
    assert len(expert.windows(len(x))) == 3
    np.testing.assert_allclose(joined[:, 2], single[:, 2], atol=1e-5)
    assert 0.5 < single[:, 1].mean() < 0.95
    np.testing.assert_array_equal(joined[:, :2], single[:, :2])


@pytest.mark.parametrize("option", [{"checkpoint": "x"}, {"layer": "3"}, {"precision": "bfloat16"}, {"compile": True}])
def test_options_without_use_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--expert pyin: takes no --{next(iter(option))}"):
        create("pyin", Options(**option))
