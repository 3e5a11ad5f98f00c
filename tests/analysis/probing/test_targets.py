"""What is read off the states: means of frames, frames at positions, labels; and intervals of scores."""

from dataclasses import replace

import numpy as np
import pytest

from coat.analysis.probing.scores import draw
from coat.analysis.probing.targets import (
    at_positions,
    expert_targets,
    known_frames,
    label_of,
    label_target,
    mean_of_known,
)
from coat.manifests import ExpertInfo, InputError
from tests.trainer.helpers import SPECS


def expert(name: str, **changes) -> ExpertInfo:
    spec = replace(SPECS[name], **changes)
    return ExpertInfo(spec=spec, samples=1, frames=1, mean=(0.0,) * spec.dim, std=(1.0,) * spec.dim)


def test_f0_is_the_mean_over_voiced_frames() -> None:
    frames = np.array([[8.0, 0.9, -20], [9.0, 0.2, -30], [7.0, 0.5, -10], [0.0, 0.9, -40], [np.nan, 0.9, -90]])
    known = known_frames(frames.astype(np.float16), SPECS["pitch"])
    assert mean_of_known(known).tolist() == pytest.approx([7.5, 0.625, -25.0], abs=1e-3)  # the last is masked, whole
    assert np.isnan(mean_of_known(known[1:2])[0])
    assert np.isnan(mean_of_known(known[:0])).all()


def test_a_position_has_the_frames_of_its_share_of_the_audio() -> None:
    """A ramp: the mean over a share is the ramp at its middle."""
    rate, start, seconds = 50.0, 0.01, 4.0
    times = start + np.arange(200) / rate
    ramp = np.stack([times, 1 - times], 1).astype(np.float32)
    for count in (1, 4, 25, 100):
        middle = (np.arange(count) + 0.5) * seconds / count
        found = at_positions(ramp, start, rate, count, seconds)
        assert np.allclose(found[:, 0], middle, atol=1e-5)
        assert np.allclose(found.sum(1), 1, atol=1e-5)
    few = at_positions(ramp[::50], start, 1.0, 16, seconds)  # 4 frames for 16 positions: between them, and held at ends
    middle = (np.arange(16) + 0.5) * 0.25
    within = np.floor((start + np.arange(4)) / 0.25).astype(int)
    expected = np.clip(middle, start, start + 3)
    expected[within] = start + np.arange(4)
    assert np.allclose(few[:, 0], expected, atol=1e-5)
    assert np.isnan(at_positions(ramp[:0], start, rate, 3, seconds)).all()
    ramp[40:60] = np.nan
    gap = at_positions(ramp, start, rate, 100, seconds)
    assert np.isnan(gap[20:30]).all()
    assert np.isfinite(np.delete(gap, np.s_[20:30], 0)).all()


def test_targets_of_an_expert() -> None:
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    names = [target.name for target in expert_targets("pitch", expert("pitch"), rows)]
    assert names == ["pitch.log2_f0_hz", "pitch.voicing", "pitch.loudness_db"]
    four = np.arange(40, dtype=np.float32).reshape(10, 4)
    assert [t.name for t in expert_targets("prosody", expert("prosody"), four)] == [f"prosody.{n}" for n in range(4)]
    six = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * [1, 10, 100, 1, 1, 0]
    (mel,) = expert_targets("mel", expert("mel"), six.astype(np.float32))
    assert mel.y_NC.shape == (50, 5)  # one does not vary
    assert np.allclose(mel.y_NC.std(0), 1, atol=1e-5)
    (events,) = expert_targets("events", expert("events"), six[:, :5].astype(np.float32))
    assert np.array_equal(events.y_NC, six[:, :5].astype(np.float32))


def test_labels_are_words_or_numbers() -> None:
    meta = {"prompt": "What?", "response": "high", "extra": {"speaker": "ann", "truth": {"hz": 440.0}, "prompt": "own"}}
    assert [label_of(meta, name) for name in ("speaker", "truth.hz", "response", "prompt", "truth.x", "no")] == [
        "ann", 440.0, "high", "own", None, None,
    ]  # fmt: skip
    groups = np.arange(6)
    numbers = label_target("hz", [1, 2.5, None, 4, 5, 6], groups)
    assert numbers.metric == "r2"
    assert np.isnan(numbers.y_NC[2]).all()
    words = label_target("who", ["a", "b", "a", "b", "once", None], groups)
    assert words.classes == ("a", "b")
    assert words.y_NC[:4].argmax(1).tolist() == [0, 1, 0, 1]
    assert np.isnan(words.y_NC[4:]).all()
    assert label_target("is", [True, False, True, False, None, None], groups).classes == ("false", "true")
    with pytest.raises(InputError, match="one value is 3; expected words, or numbers throughout"):
        label_target("mixed", ["a", 3, "b", None, None, None], groups)
    with pytest.raises(InputError, match="0 of its 6 values are in 2 clips or more"):
        label_target("id", list("abcdef"), groups)
    with pytest.raises(InputError, match="0 of its 2 values"):  # two questions about one sound are one clip
        label_target("who", ["a", "a", "b", "b"], np.array([0, 0, 1, 1]))


def test_intervals_hold_the_true_score() -> None:
    """95 % of intervals over groups of known errors hold the true R2."""
    held = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sums = np.stack([rng.exponential(1, 200), rng.exponential(4, 200), *rng.exponential(4, (2, 200))], 1)
        (one,) = draw(["r2"], [sums], seed=seed)
        score, control, selectivity = one.figures()
        assert score.low is not None
        assert score.high is not None
        held += score.low <= 0.75 <= score.high
        assert one.less(one).to_list() == [0.0, 0.0, 0.0]
        assert selectivity.value == pytest.approx((score.value or 0) - (control.value or 0))
    assert held >= 35
    (sure,) = draw(["accuracy"], [np.tile([1.0, 1.0, 0.0, 1.0], (9, 1))], seed=0)
    value, low, high = sure.figures()[0].to_list()
    assert (value, high) == (1.0, 1.0)
    assert low is not None
    assert 0.6 < low < 0.75  # Wilson's interval of 9 of 9
