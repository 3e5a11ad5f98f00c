import numpy as np
import opensmile
import pytest

from coat.extractors import Expert
from tests.extractors.conformance.conformance import ExpertConformance, loaded, noise, tone


class TestProsody(ExpertConformance):
    seam_window_s = 8.0

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        return loaded("prosody")


@pytest.fixture(scope="module")
def expert() -> Expert:
    return loaded("prosody")


def test_equals_opensmile_but_for_the_alignment(expert: Expert) -> None:
    x = np.concatenate([noise(0.4, 16000, level=0.01), tone(1.0, 16000)])
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)
    table = smile.process_signal(x, 16000)
    (frames,) = expert.extract([x])
    assert len(frames) == len(table) - 2
    for i, name in enumerate(expert.spec.channels):
        long = name.startswith(("F0", "HNR", "logRel")) or "LogRelF0" in name
        column = table[name].to_numpy()
        np.testing.assert_allclose(frames[:, i], column[:-2] if long else column[2:], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("start_s", [0.5, 0.633])
@pytest.mark.parametrize("channel", ["Loudness_sma3", "spectralFlux_sma3", "F0semitoneFrom27.5Hz_sma3nz",
                                     "HNRdBACF_sma3nz", "logRelF0-H1-H2_sma3nz", "F1amplitudeLogRelF0_sma3nz",
                                     "jitterLocal_sma3nz"])  # fmt: skip
def test_every_channel_lies_at_its_own_time(expert: Expert, channel: str, start_s: float) -> None:
    """A voiced burst of 0.4 s: the centre of what it changes is its centre, to a frame (10 ms)."""
    x = noise(2.0, 16000, level=1e-4).copy()
    first = round(start_s * 16000)
    x[first : first + 6400] += tone(0.4, 16000, hz=200.0)
    (frames,) = expert.extract([x])
    values = frames[:, expert.spec.channels.index(channel)]
    inside = np.median(values[first // 160 + 5 : first // 160 + 25])
    changed = np.flatnonzero(np.abs(values - np.median(values[:20])) > np.abs(values - inside))
    times = expert.spec.times(len(values))
    assert (times[changed[0]] + times[changed[-1]]) / 2 == pytest.approx(start_s + 0.2, abs=0.0101)


def test_full_scale_does_not_wrap(expert: Expert) -> None:
    square = np.sign(tone(1.0, 16000)).astype(np.float32)
    full, less = expert.extract([square, square * np.float32(0.999)])
    np.testing.assert_allclose(full[:, 0], less[:, 0], rtol=0.02)
