from typing import Any

import numpy as np
import pytest
from swift_f0 import SwiftF0

from coat.extractors import Expert, Options, create
from coat.manifests import InputError
from tests.extractors.conformance.conformance import ExpertConformance, loaded, noise, tone


class TestPitch(ExpertConformance):
    seam_window_s = 8.0

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        return loaded("pitch")


def test_equals_the_package() -> None:
    x = np.concatenate([noise(0.5, 16000), tone(1.0, 16000)])
    (frames,) = loaded("pitch").extract([x])
    found = SwiftF0(threads=1, spin=False).detect(x, 16000)
    np.testing.assert_allclose(2.0 ** frames[:, 0], found.pitch_hz, rtol=1e-5)
    np.testing.assert_allclose(frames[:, 1], found.confidence, atol=1e-6)
    np.testing.assert_allclose(frames[:, 2], found.loudness_db, atol=1e-4)
    np.testing.assert_allclose(create("pitch", Options()).spec.times(len(frames)), found.timestamps)


def test_a_tone_has_its_pitch_and_its_time() -> None:
    expert = loaded("pitch")
    x = np.zeros(32000, dtype=np.float32)
    x[8000:24000] = tone(1.0, 16000, hz=220.0)  # from 0.5 s to 1.5 s
    (frames,) = expert.extract([x])
    voiced = np.flatnonzero(frames[:, 1] > 0.5)
    times = expert.spec.times(len(frames))[voiced]
    assert times[0] == pytest.approx(0.5, abs=0.025)
    assert times[-1] == pytest.approx(1.5, abs=0.025)
    assert np.median(2 ** frames[voiced, 0]) == pytest.approx(220.0, rel=0.005)


@pytest.mark.parametrize(
    "option", [{"checkpoint": "x"}, {"layer": "3"}, {"precision": "bfloat16"}, {"pad_margin": 1.0}]
)
def test_options_without_use_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"--expert pitch: takes no --{next(iter(option)).replace('_', '-')}"):
        create("pitch", Options(**option))
