"""Frames as they are stored: cast as numpy casts, and refused where a value has no place."""

import numpy as np
import pytest

from coat.extractors.expert import Frames
from coat.pipeline.decoding.decoded_row import DecodedRow
from coat.pipeline.worker.frame_checks import accept_frames, all_finite, cast_frames
from tests.pipeline.experts import Level, Options
from tests.pipeline.worker.helpers import planned_row

EVERY_HALF = np.arange(2**16, dtype=np.uint16).view(np.float16)  # all float16 values, infinities and NaNs too


def between() -> Frames:
    """Float32 values at, just below and just above each float16 value and each middle between two."""
    halves = np.sort(EVERY_HALF[np.isfinite(EVERY_HALF)].astype(np.float32))
    middles = np.append((halves[:-1] + halves[1:]) / 2, [65519.0, 65520.0, 65521.0, 1e30, -1e30])
    points = np.concatenate([halves, middles]).astype(np.float32)
    points = np.concatenate([points, np.nextafter(points, np.float32("inf")), np.nextafter(points, -np.float32("inf"))])
    return points[: len(points) // 8 * 8].reshape(-1, 8)


def test_frames_are_cast_as_numpy_casts_them() -> None:
    values_ND = between()
    with np.errstate(over="ignore"):
        expected_ND = values_ND.astype(np.float16)
    assert cast_frames(values_ND, "float16").tobytes() == expected_ND.tobytes()
    turned_ND = np.asfortranarray(values_ND)[::-1]
    turned_ND.flags.writeable = False
    assert np.array_equal(cast_frames(turned_ND, "float16"), expected_ND[::-1])
    assert cast_frames(turned_ND, "float32").flags.c_contiguous


def test_finite_is_what_numpy_says_of_every_float16() -> None:
    for value in EVERY_HALF:
        assert all_finite(np.array([[0, value]], np.float16)) == np.isfinite(value)
    assert all_finite(np.empty((0, 3), np.float16))
    assert not all_finite(np.array([[1.0, np.nan]], np.float32))


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (np.full((4, 3), 7e4, np.float32), "overflow: values up to 7e+04 do not fit float16; use --dtype float32"),
        (np.full((4, 3), np.inf, np.float32), "not_finite: the expert gave NaN or infinity"),
        (np.full((4, 3), np.nan, np.float32), "not_finite: the expert gave NaN or infinity"),
        (np.full((4, 3), np.nan, np.float16), "not_finite: the expert gave NaN or infinity"),
        (np.full((4, 3), np.inf, np.float16), "overflow: values that do not fit float16, or are infinite; "),
        (np.zeros((4, 5), np.float32), "bad_shape: frames [4, 5]; the spec says [frames, 3]"),
        (np.zeros((0, 3), np.float32), "bad_shape: frames [0, 3]"),
    ],
)
def test_a_row_without_sound_frames_fails(frames: Frames, error: str) -> None:
    row = DecodedRow(planned_row())
    accept_frames(Level(Options()).spec, row, frames)
    assert row.status == "failed"
    assert row.error
    assert row.error.startswith(error)
    assert row.frames_ND is None
