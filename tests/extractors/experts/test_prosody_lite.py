"""Against sounds of known f0, loudness, rhythm and spectrum; and BS.1770 against its filters run in time."""

from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

from coat.extractors import Expert, Frames, Options, create
from coat.extractors.experts.prosody_lite import K_FILTERS, K_RATE, k_weights
from coat.manifests import InputError
from tests.extractors.conformance.conformance import ExpertConformance, loaded, noise, tone

RATE = 16000
BINS_BELOW_1000, BINS_ABOVE_1000 = 30, 129  # of 31.25 Hz: from 62.5 on, and from 1000 to 5000


class TestProsodyLite(ExpertConformance):
    seam_window_s = 8.0

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        return loaded("prosody-lite")


@pytest.fixture(scope="module")
def expert() -> Expert:
    return loaded("prosody-lite")


def channels(expert: Expert, x: np.ndarray) -> dict[str, Frames]:
    (frames,) = expert.extract([x.astype(np.float32)])
    return dict(zip(expert.spec.channels, frames.T, strict=True))


def seconds(duration: float) -> np.ndarray:
    return np.arange(round(duration * RATE)) / RATE


def sine(hz: float, duration: float = 2.0, amplitude: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * seconds(duration))


def test_f0_and_voicing_are_those_of_pitch(expert: Expert) -> None:
    x = np.concatenate([noise(0.5, RATE), tone(1.0, RATE, hz=190.0)])
    found, (pitch,) = channels(expert, x), loaded("pitch").extract([x])
    np.testing.assert_array_equal(found["log2_f0_hz"], pitch[:, 0])
    np.testing.assert_array_equal(found["voicing"], pitch[:, 1])
    assert np.median(2 ** found["log2_f0_hz"][40:]) == pytest.approx(190.0, rel=0.005)


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.003])
@pytest.mark.parametrize(("hz", "gain"), [(997.0, 0.0), (200.0, -0.96), (4000.0, 3.28)])
def test_loudness_of_a_sine(expert: Expert, hz: float, gain: float, amplitude: float) -> None:
    """A sine of full scale and 997 Hz reads -3.01 LKFS (BS.1770-5); `gain`: what the filters give other frequencies."""
    found = channels(expert, sine(hz, amplitude=amplitude))["loudness_lkfs"][5:-5]
    np.testing.assert_allclose(found, -3.01 + gain + 20 * np.log10(amplitude), atol=0.05)


@pytest.mark.parametrize("hz", [60.0, 100.0, 1500.0, 4000.0, 7000.0])
def test_k_weights_are_the_filters(hz: float) -> None:
    heard = np.sin(2 * np.pi * hz * np.arange(2 * K_RATE) / K_RATE)
    for b, a in K_FILTERS:
        heard = np.asarray(lfilter(b, a, heard))
    assert float(k_weights(np.array([hz]))[0]) == pytest.approx(np.mean(heard[K_RATE:] ** 2) / 0.5, rel=1e-3)


def test_silence_is_at_the_gate_and_steady(expert: Expert) -> None:
    found = channels(expert, np.zeros(2 * RATE))
    flat = {"tilt_db": 10 * np.log10(BINS_ABOVE_1000 / BINS_BELOW_1000), "centroid_log2_hz": np.log2(4000)}
    still = {"voicing": 0, "loudness_lkfs": -70, "loudness_slope_db_s": 0, "syllable_hz": 5, "syllable_depth": 0}
    for name, value in (flat | still).items():
        np.testing.assert_allclose(found[name], value, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("rise", [40.0, -25.0])
def test_slope_of_a_sound_that_swells(expert: Expert, rise: float) -> None:
    t = seconds(1.5)
    x = sine(997.0, 1.5) * 10 ** ((rise * (t - 0.75) - 35) / 20)
    found = channels(expert, x)["loudness_slope_db_s"]
    np.testing.assert_allclose(found[8:-8], rise, atol=0.5)


def test_a_step_in_level_lies_where_the_spec_says(expert: Expert) -> None:
    step = 1.0123
    x = sine(997.0, 2.0) * np.where(seconds(2.0) < step, 0.01, 0.1)
    found = channels(expert, x)
    times = expert.spec.times(len(found["voicing"]))
    louder = int(np.flatnonzero(found["loudness_lkfs"] > -26.02)[0])  # half the power of the later part
    assert times[louder - 1] - 0.5 / expert.spec.rate_hz < step < times[louder] + 0.5 / expert.spec.rate_hz
    steepest = times[found["loudness_slope_db_s"].argmax()]
    assert steepest == pytest.approx(step, abs=2 / expert.spec.rate_hz)


@pytest.mark.parametrize("depth", [0.2, 0.9])
@pytest.mark.parametrize("hz", [3.0, 4.0, 5.5, 7.0])
def test_a_tone_that_swells_four_times_a_second_has_four_syllables_a_second(
    expert: Expert, hz: float, depth: float
) -> None:
    found = channels(expert, sine(500.0, 4.0, 0.3) * (1 + depth * np.sin(2 * np.pi * hz * seconds(4.0))))
    middle = slice(64, -64)
    np.testing.assert_allclose(found["syllable_hz"][middle], hz, atol=0.05)
    np.testing.assert_allclose(found["syllable_depth"][middle], depth, rtol=0.06)
    np.testing.assert_allclose(found["syllable_hz"], hz, atol=0.8)  # at the ends half the window is empty


def test_rhythm_changes_when_the_rhythm_changes(expert: Expert) -> None:
    """3 a second, then 6: the middle of the change is where the spec says, to three frames of a window of 129."""
    t = seconds(8.0)
    phase = np.where(t < 4, 3 * t, 12 + 6 * (t - 4))
    found = channels(expert, 0.3 * sine(500.0, 8.0) * (1 + 0.5 * np.sin(2 * np.pi * phase)))["syllable_hz"]
    faster = int(np.flatnonzero(found[64:-64] > 4.5)[0]) + 64
    assert expert.spec.times(len(found))[faster] == pytest.approx(4.0, abs=3 / expert.spec.rate_hz)


def test_steady_sounds_have_no_rhythm(expert: Expert) -> None:
    found = channels(expert, sine(500.0, 3.0, 0.3))
    assert found["syllable_depth"][70:-70].max() < 0.01


def test_balance_of_two_sines(expert: Expert) -> None:
    found = channels(expert, sine(400.0, amplitude=0.3) + sine(2500.0, amplitude=0.03))
    np.testing.assert_allclose(found["tilt_db"][5:-5], -20, atol=0.05)
    mean = (400 * 0.3**2 + 2500 * 0.03**2) / (0.3**2 + 0.03**2)
    np.testing.assert_allclose(2 ** found["centroid_log2_hz"][5:-5], mean, rtol=0.01)


@pytest.mark.parametrize("option", [{"checkpoint": "x"}, {"layer": "3"}, {"precision": "bfloat16"}, {"compile": True}])
def test_options_without_use_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--expert prosody-lite: takes no --{next(iter(option))}"):
        create("prosody-lite", Options(**option))
