from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.extractors import Frames, Options, Waveform, Window, extract_windows
from coat.extractors.windows import group_by_length, kept_frames, padded_batches, plan_windows, split_into_windows
from tests.pipeline.experts import Level

HOPS = st.sampled_from([Fraction(1), Fraction(4), Fraction(160), Fraction(7, 3), Fraction(512)])


def frames_of(samples: int, hop: Fraction, centre: Fraction) -> int:
    """Frames whose centre lies in the clip."""
    return max(0, -int(-(samples - centre) // hop))


@settings(deadline=None)
@given(samples=st.integers(1, 50_000), size=st.integers(1, 40), hop=HOPS, data=st.data())
def test_windows_keep_every_frame_once_and_with_its_context(
    samples: int, size: int, hop: Fraction, data: st.DataObject
) -> None:
    centre = data.draw(st.sampled_from([Fraction(0), hop / 2, 2 * hop, -hop]))
    context = data.draw(st.integers(0, int(size * hop / 2)))
    length = int((size + 2 * hop.denominator + 4) * hop) + 2 * context
    plan = plan_windows(samples, length, context, hop, centre)
    assert (len(plan) == 1) == (samples <= length)
    total, at = frames_of(samples, hop, centre), 0
    for i, w in enumerate(plan):
        assert 0 <= w.start < w.stop <= samples
        assert w.stop - w.start <= length
        first = Fraction(w.start) / hop
        assert first.denominator == 1
        assert first + w.skip == at
        last = total if w.keep is None else at + w.keep
        assert (w.keep is None) == (i == len(plan) - 1)
        assert i == 0 or centre + at * hop - w.start >= context
        assert w.keep is None or w.stop - (centre + (last - 1) * hop) >= context
        assert i == 0 or w.stop - w.start > length - hop * hop.denominator  # full
        at = last
    assert plan[-1].stop == samples


def test_a_long_clip_by_hand() -> None:
    """Frames of one sample, centred at it; 2 samples of context."""
    assert plan_windows(25, size=10, context=2, hop=Fraction(1), centre=Fraction(0)) == [
        Window(0, 10, 0, 9),
        Window(7, 17, 2, 7),
        Window(14, 24, 2, 4),
        Window(15, 25, 5, None),  # moved back from 21, to be full; of the overlap, each keeps half
    ]


def test_a_window_must_hold_a_frame_and_its_context() -> None:
    with pytest.raises(ValueError, match="windows of 10 samples have no frame with 6 samples on both sides"):
        plan_windows(30, size=10, context=6, hop=Fraction(4), centre=Fraction(0))


@settings(deadline=None)
@given(st.integers(1, 900), st.integers(1, 50))
def test_windows_are_cut_from_pieces_of_any_length(samples: int, piece: int) -> None:
    x = np.arange(samples, dtype=np.float32)
    plan = plan_windows(samples, size=100, context=10, hop=Fraction(4), centre=Fraction(2))
    pieces = [x[i : i + piece] for i in range(0, samples, piece)]
    for window, heard_T in zip(plan, split_into_windows(pieces, plan), strict=True):
        np.testing.assert_array_equal(heard_T, x[window.start : window.stop])


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_groups_keep_order_and_budget(lengths: list[int], budget: int) -> None:
    found = list(padded_batches(lengths, lambda n: n, budget))
    assert [n for group in found for n in group] == lengths
    assert all(len(group) == 1 or max(group) * len(group) <= budget for group in found)


def test_equal_lengths_share_a_batch() -> None:
    assert group_by_length([3, 5, 3, 4, 5]) == [[0, 2], [1, 4], [3]]


class Neighbours(Level):
    """Frame i hears its hop of 160 samples and one hop on either side: (240 samples from its centre)."""

    window_s, context_s = 0.2, 0.015

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        self.heard = [*getattr(self, "heard", []), [len(x) for x in waveforms]]
        return [neighbours(x) for x in waveforms]


def neighbours(samples_T: Waveform) -> Frames:
    sums_N = samples_T[: len(samples_T) // 160 * 160].reshape(-1, 160).sum(axis=1)
    padded = np.pad(sums_N, 1)
    return np.stack([padded[:-2], padded[1:-1], padded[2:]], axis=1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(160, 20_000), min_size=1, max_size=5), st.floats(0.05, 2.0))
def test_a_model_with_little_context_cannot_tell_windows_from_a_whole(lengths: list[int], batch_seconds: float) -> None:
    expert = Neighbours(Options())
    expert.batch_seconds = batch_seconds
    clips = [np.random.default_rng(n).normal(size=n).astype(np.float32) for n in lengths]
    for x, frames in zip(clips, extract_windows(expert, clips), strict=True):
        np.testing.assert_array_equal(frames, neighbours(x))
    assert all(len(batch) == 1 or max(batch) * len(batch) <= batch_seconds * 16000 for batch in expert.heard)
    assert max(max(batch) for batch in expert.heard) <= 3200


def test_too_few_frames_of_a_window_are_an_error() -> None:
    plan = [Window(0, 100, 0, 4), Window(60, 160, 1, None)]
    with pytest.raises(ValueError, match=r"3 frames of a window .*; expected 4"):
        list(kept_frames([np.zeros((3, 1)), np.zeros((5, 1))], plan))
    assert [len(f) for f in kept_frames([np.zeros((6, 1)), np.zeros((5, 1))], plan)] == [4, 4]


@given(samples=st.integers(1, 2_000_000))
def test_windows_that_cannot_begin_at_whole_samples(samples: int) -> None:
    """CLAP's: 32 frames of 15014.66 samples, a whole number of which only 341 make."""
    hop, centre, size = Fraction(5_120_000, 341), Fraction(80_000, 11), 480_000
    plan = plan_windows(samples, size, 48_000, hop, centre)
    at = 0
    for w in plan:
        assert abs(w.start - (at - w.skip) * hop) <= Fraction(1, 2)
        assert 0 <= w.start < w.stop <= samples
        at += w.keep or 0
    last = plan[-1]
    assert last.stop == samples
    found = at - last.skip + frames_of(last.stop - last.start, hop, centre)
    assert abs(found - frames_of(samples, hop, centre)) <= 1  # half a sample may hold a centre
