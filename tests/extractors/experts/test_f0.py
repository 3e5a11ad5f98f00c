"""Every tracker of f0 on a voice-like tone whose f0 is known at each time: does what it says lie where it says?"""

from typing import Any

import numpy as np
import pytest

from coat.extractors import Expert, Frames
from coat.extractors.conformance.sounds import harmonics
from tests.extractors.conformance.conformance import loaded

SECONDS = 3.0
SWEEP_HZ = 0.8  # f0 goes up and down so often,
OCTAVES = 0.5  # by so much around
MIDDLE = 240.0  # Hz. At its steepest, 2.5 octaves a second: 25 to 58 cents a frame

TRACKERS: list[tuple[str, dict[str, Any]]] = [
    ("pitch", {}),
    ("crepe", {"checkpoint": "tiny"}),
    ("pyin", {}),
    ("prosody-lite", {}),
]


def log2_f0(t: np.ndarray) -> np.ndarray:
    return np.log2(MIDDLE) + OCTAVES * np.sin(2 * np.pi * SWEEP_HZ * t)


def heard(expert: Expert) -> Frames:
    rate = expert.spec.sample_rate
    t = np.arange(round(SECONDS * rate)) / rate
    return expert.extract([harmonics(np.cumsum(2 ** log2_f0(t)) / rate)])[0]


def frames_late(expert: Expert, frames: Frames, off: float = 0.0) -> float:
    """By how many frames what was reported lags behind what was heard, if the spec's times were `off` frames later."""
    times = expert.spec.times(len(frames)) + off / expert.spec.rate_hz
    judged = (times > 0.2) & (times < SECONDS - 0.2)
    assert np.median(frames[judged, 1]) > 0.5, "a voice-like tone is voiced"
    late = np.linspace(-5, 5, 201)
    errors = [np.abs(frames[judged, 0] - log2_f0(times[judged] - x / expert.spec.rate_hz)).mean() for x in late]
    assert 1200 * min(errors) < 20, "cents off, at the best of times"
    return float(late[int(np.argmin(errors))])


@pytest.mark.parametrize(("name", "options"), TRACKERS)
def test_f0_follows_a_glide_at_the_times_of_the_spec(name: str, options: dict[str, Any]) -> None:
    expert = loaded(name, **options)
    frames = heard(expert)
    late = frames_late(expert, frames)
    print(f"{name}: f0 is {late:+.2f} frames late")
    assert abs(late) < 1
    for off in (-2, 2):
        wrong = frames_late(expert, frames, off)
        assert wrong == pytest.approx(late + off, abs=0.1), "times that are wrong would be found"
