"""The path that librosa finds, whatever it is asked: what is impossible, what is equally good, what is certain."""

from typing import Any

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.extractors.conformance.sounds import noise, tone
from coat.extractors.experts.pyin import HIGHEST, LOWEST, faster_pyin
from coat.extractors.viterbi import viterbi

RATE = 22050


@st.composite
def models(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Few values, so that many paths are equally good, and many zeros, so that often none is possible."""
    states, times = draw(st.integers(1, 7)), draw(st.integers(1, 12))
    some = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 1e-300])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    seen_ST = np.array(draw(st.lists(some, min_size=states * times, max_size=states * times))).reshape(states, times)
    follows_SS = rng.choice([0.0, 0.0, 0.0, 1.0, 1.0, 3.0, 1e-290], (states, states))
    follows_SS[np.arange(states), rng.integers(0, states, states)] = 1.0
    first_S = rng.choice([0.0, 1.0], states)
    first_S[rng.integers(states)] = 1.0
    return seen_ST, follows_SS / follows_SS.sum(axis=1, keepdims=True), first_S / first_S.sum()


@settings(max_examples=150, deadline=None)
@given(models())
def test_any_path_is_that_of_librosa(model: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    seen_ST, follows_SS, first_S = model
    ours = viterbi(seen_ST, follows_SS, p_init=first_S)
    theirs = librosa.sequence.viterbi(seen_ST, follows_SS, p_init=first_S)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


SOUNDS = {
    "noise": noise(1.5, RATE),
    "a tone that is certain": np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE).astype(np.float32),
    "silence": np.zeros(RATE, np.float32),
    "tones and noise in turns": np.concatenate([
        part for i in range(5) for part in (tone(0.3, RATE, hz=80 * 1.7**i), noise(0.2, RATE, seed=i, level=0.02))
    ]),
    "the shortest": noise(512 / RATE, RATE),
}  # fmt: skip


@pytest.mark.parametrize("sound", SOUNDS)
def test_pyin_is_that_of_librosa_to_the_last_bit(sound: str) -> None:
    asked: dict[str, Any] = {"fmin": LOWEST, "fmax": HIGHEST, "sr": RATE, "fill_na": 1.0}
    assert faster_pyin().__code__ is librosa.pyin.__code__
    for ours, theirs in zip(faster_pyin()(SOUNDS[sound], **asked), librosa.pyin(SOUNDS[sound], **asked), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(ours, theirs)
