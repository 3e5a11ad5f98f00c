import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.extractors.windows import Window, extract_windows, groups, windows


@settings(deadline=None)
@given(frames=st.integers(0, 5000), size=st.integers(2, 400), data=st.data())
def test_windows_cover_every_frame_once(frames: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    plan = windows(frames, size, overlap)
    assert [i for w in plan for i in range(w.keep_first, w.keep_stop)] == list(range(frames))
    for w in plan:
        assert 0 <= w.first <= w.keep_first <= w.keep_stop <= w.stop <= frames
        assert w.stop - w.first == min(size, frames)
        # What is kept has half the overlap as context on both sides, where the clip goes on.
        assert w.first == 0 or w.keep_first - w.first >= overlap // 2
        assert w.stop == frames or w.stop - w.keep_stop >= overlap // 2


def test_a_long_clip_by_hand() -> None:
    assert windows(25, size=10, overlap=4) == [
        Window(0, 10, 0, 8),
        Window(6, 16, 8, 14),
        Window(12, 22, 14, 18),
        Window(15, 25, 18, 25),  # moved back from 18, to be full
    ]


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_groups_keep_order_and_budget(lengths: list[int], budget: int) -> None:
    found = list(groups(lengths, lambda n: n, budget))
    assert [n for group in found for n in group] == lengths
    assert all(len(group) == 1 or max(group) * len(group) <= budget for group in found)


HOP, SIZE, OVERLAP = 4, 12, 6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=5), st.integers(1, 500))
def test_a_model_with_little_context_cannot_tell_windows_from_a_whole(lengths: list[int], budget: int) -> None:
    """Frame i hears HOP samples from i * HOP and one hop on either side: less than half the overlap."""

    def model(samples_T: np.ndarray) -> np.ndarray:
        padded = np.pad(samples_T, (HOP, HOP + -len(samples_T) % HOP))
        sums = np.add.reduceat(padded, range(0, len(padded), HOP))
        return np.stack([sums[:-2], sums[1:-1], sums[2:]], axis=1).astype(np.float32)

    clips = [np.random.default_rng(n).normal(size=n).astype(np.float32) for n in lengths]
    largest = []

    def forward(batch: list[np.ndarray]) -> list[np.ndarray]:
        largest.append(max(map(len, batch)) * len(batch) if len(batch) > 1 else 0)
        return [model(x) for x in batch]

    found = extract_windows(
        clips,
        plan=lambda samples: windows(-(-samples // HOP), SIZE, OVERLAP),
        cut=lambda x, w: x[w.first * HOP : w.stop * HOP],
        forward=forward,
        budget=budget,
    )
    assert max(largest) <= budget
    for x, frames in zip(clips, found, strict=True):
        np.testing.assert_array_equal(frames, model(x))


def test_overlap_must_be_smaller_than_the_window() -> None:
    with pytest.raises(AssertionError):
        windows(10, size=4, overlap=4)
