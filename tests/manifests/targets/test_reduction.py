"""Reductions: what comes back, how far off it may be, and where a frame of a lower rate lies in time."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from coat.manifests.errors import InputError
from coat.manifests.targets.coding import INDEX, SCALE, VALUES, decode_frames, encode_frames
from coat.manifests.targets.frame_rate import RateReduction
from coat.manifests.targets.reduction import ConstantArray, PrincipalBasis, Reduction

frames = st.tuples(st.integers(0, 30), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-1000, 1000, width=32))
)
shares = st.floats(0.05, 1.0) | st.sampled_from([1.0, 0.5, 0.25, 0.2])
rates = st.tuples(st.sampled_from([50.0, 62.5, 100.0, 43.06640625, 31.25]), shares)


def plain(dim: int, kind: str = "representation", **how: Any) -> Reduction:
    return Reduction(kind=kind, dim=dim, source_hz=50.0, source_start_s=0.01, **how)  # pyright: ignore[reportArgumentType]


def basis_of(frames_ND: NDArray[Any], components: int, whiten: bool = False) -> PrincipalBasis:
    x = frames_ND.astype(np.float64)
    variance, axes = np.linalg.eigh(np.cov(x, rowvar=False, bias=True))
    size = np.sqrt(variance[::-1][:components]) if whiten else np.ones(components)
    return PrincipalBasis(
        ConstantArray.of(x.mean(0)), ConstantArray.of(axes.T[::-1][:components]), ConstantArray.of(size)
    )


@given(frames)
def test_nothing_is_lost_where_nothing_is_left_out(frames_ND: NDArray[np.float32]) -> None:
    how = plain(frames_ND.shape[1])
    np.testing.assert_array_equal(decode_frames(encode_frames(frames_ND, how), how), frames_ND)
    how = replace(how, dtype="float16")
    halves_ND = frames_ND.astype(np.float16)
    np.testing.assert_array_equal(decode_frames(encode_frames(halves_ND, how), how), halves_ND.astype(np.float32))


@given(frames)
def test_int8_by_frame_is_off_by_half_a_step(frames_ND: NDArray[np.float32]) -> None:
    how = plain(frames_ND.shape[1], dtype="int8")
    members = encode_frames(frames_ND, how)
    assert (members[VALUES].dtype, members[SCALE].shape) == (np.int8, (len(frames_ND),))
    off_ND = np.abs(decode_frames(members, how) - frames_ND)
    largest_N1 = np.abs(frames_ND).max(axis=1, keepdims=True, initial=0.0)
    assert (off_ND <= largest_N1 / 254 * 1.001 + 1e-6 * largest_N1 + 1e-38).all()


@given(frames, st.floats(0.01, 10))
def test_int8_by_dimension_is_off_by_half_a_step_within_its_span(frames_ND: NDArray[np.float32], step: float) -> None:
    dim = frames_ND.shape[1]
    offset_C, scale_C = ConstantArray.of(np.arange(dim)), ConstantArray.of(np.full(dim, step))
    how = plain(dim, dtype="int8", scaling="dimension", offset_C=offset_C, scale_C=scale_C)
    found_ND = decode_frames(encode_frames(frames_ND, how), how)
    low_C, high_C = (offset_C.array + sign * 127 * scale_C.array for sign in (-1, 1))
    assert (np.abs(found_ND - np.clip(frames_ND, low_C, high_C)) <= step * 0.501 + 1e-4).all()


def test_principal_components_come_back_as_their_projection() -> None:
    x = np.random.default_rng(0).standard_normal((200, 8)) @ np.random.default_rng(1).standard_normal((8, 8)) + 5
    x = x.astype(np.float32)
    whole = plain(8, basis=basis_of(x, 8))
    np.testing.assert_allclose(decode_frames(encode_frames(x, whole), whole), x, atol=1e-4)
    for whiten in (False, True):
        how = plain(8, basis=basis_of(x, 3, whiten))
        members = encode_frames(x, how)
        assert members[VALUES].shape == (200, 3)
        if whiten:
            np.testing.assert_allclose(members[VALUES].std(0), 1.0, atol=1e-4)
        axes = np.linalg.eigh(np.cov(x.astype(np.float64), rowvar=False))[1][:, ::-1][:, :3]
        mean = x.astype(np.float64).mean(0)
        np.testing.assert_allclose(decode_frames(members, how), (x - mean) @ axes @ axes.T + mean, atol=1e-3)


@given(
    frames_ND=arrays(
        np.float32, st.tuples(st.integers(0, 9), st.integers(1, 7)), elements=st.floats(-3.5, 3.5, width=32)
    )
)
def test_int4_is_two_a_byte_and_off_by_half_a_step(frames_ND: NDArray[np.float32]) -> None:
    dim = frames_ND.shape[1]
    offset_C, scale_C = ConstantArray.of(np.full(dim, 0.25)), ConstantArray.of(np.full(dim, 0.5))
    how = plain(dim, dtype="int4", scaling="dimension", offset_C=offset_C, scale_C=scale_C)
    members = encode_frames(frames_ND, how)
    assert (members[VALUES].dtype, members[VALUES].shape) == (np.uint8, (len(frames_ND), -(-dim // 2)))
    inside = np.clip(frames_ND, 0.25 - 3.5, 0.25 + 3.5)
    assert np.abs(decode_frames(members, how) - inside).max(initial=0.0) <= 0.25 + 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_the_largest_probabilities_are_kept(dtype: str) -> None:
    p = np.random.default_rng(0).random((50, 300)) ** 20
    how = plain(300, "probabilities", topk=4, dtype=dtype)
    members = encode_frames(p, how)
    assert (members[INDEX].dtype, members[INDEX].shape) == (np.uint16, (50, 4))
    found = decode_frames(members, how)
    kept = p >= np.sort(p, axis=1)[:, [-4]]
    np.testing.assert_allclose(found[kept], p[kept], atol=0.005)
    assert not found[~kept].any()
    p /= p.sum(axis=1, keepdims=True)
    how = replace(how, kind="distribution")
    found = decode_frames(encode_frames(p, how), how)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=0.01)
    np.testing.assert_array_equal(found.argmax(axis=1), p.argmax(axis=1))


@given(st.integers(0, 60), rates)
@settings(deadline=None)
def test_a_lower_rate_keeps_time_and_means(count: int, rate: tuple[float, float]) -> None:
    """What grows evenly with time has, in each frame, its value at the frame's centre: where frames are cut, within an
    eighth of a source frame, since a source frame is one value for all of its span."""
    base = RateReduction(rate[0], 0.02, rate[0] * rate[1])
    times_N = base.source_start_s + np.arange(count) / base.source_hz
    lowered_MD = base.downsample(np.stack([times_N, np.ones(count)], axis=1))
    covered_M = base.coverage(count)
    assert len(lowered_MD) == len(covered_M) == base.frames(count)
    np.testing.assert_allclose(lowered_MD[:, 1], 1.0)
    times_M = base.start_s + np.arange(len(lowered_MD)) / base.rate_hz
    whole_M = covered_M > 1 - 1e-9
    assert whole_M[:-1].all()
    cut = 0.0 if base.step.is_integer() else 0.125 / base.step / base.source_hz
    assert (np.abs(lowered_MD[whole_M, 0] - times_M[whole_M]) <= cut + 1e-9).all()
    np.testing.assert_allclose((covered_M * base.step).sum(), count)
    np.testing.assert_allclose((lowered_MD[:, 0] * covered_M).sum() * base.step, times_N.sum(), atol=1e-9)


@given(frames, rates)
@settings(deadline=None)
def test_lower_frames_are_means_of_what_lies_under_them(
    frames_ND: NDArray[np.float32], rate: tuple[float, float]
) -> None:
    """Against a matrix of overlaps."""
    base, n = RateReduction(rate[0], 0.0, rate[0] * rate[1]), len(frames_ND)
    m = base.frames(n)
    starts_M, starts_N = np.arange(m) * base.step, np.arange(n)
    overlap_MN = np.minimum(starts_M[:, None] + base.step, starts_N + 1) - np.maximum(starts_M[:, None], starts_N)
    overlap_MN = np.clip(overlap_MN, 0, None)
    truth_MD = overlap_MN @ frames_ND.astype(np.float64) / np.maximum(overlap_MN.sum(1, keepdims=True), 1e-12)
    sure_M = overlap_MN.sum(1) > 1e-6
    np.testing.assert_allclose(base.downsample(frames_ND)[sure_M], truth_MD[sure_M], atol=1e-4)


def test_the_same_rate_changes_nothing_and_a_wave_above_it_is_gone() -> None:
    x = np.random.default_rng(0).standard_normal((100, 3))
    np.testing.assert_allclose(RateReduction(50.0, 0.01, 50.0).downsample(x), x, atol=1e-12)
    np.testing.assert_allclose(RateReduction(50.0, 0.01, 50.0).upsample(x, 100), x)
    times = np.arange(1000) / 50.0
    for hz, left in ((0.5, 0.98), (12.5, 0.001), (24.0, 0.1)):  # the lower rate is 12.5 Hz
        wave = np.sin(2 * np.pi * hz * times)[:, None]
        assert (np.abs(RateReduction(50.0, 0.0, 12.5).downsample(wave)).max() > left) == (hz < 1)


def test_back_at_the_rate_it_came_from_lines_stay_lines() -> None:
    base = RateReduction(50.0, 0.01, 12.5)
    line = np.linspace(0, 1, 103)[:, None]
    back = base.upsample(base.downsample(line), 103)
    assert back.shape == line.shape
    np.testing.assert_allclose(back[2:-4], line[2:-4], atol=1e-9)
    assert base.upsample(np.zeros((0, 2)), 0).shape == (0, 2)
    np.testing.assert_array_equal(base.upsample(np.array([[3.0]]), 2), [[3.0], [3.0]])


def test_f0_is_the_mean_of_voiced_frames() -> None:
    pitch = np.array([[7.0, 0.9, -20], [9.0, 0.1, -40], [6.0, 0.9, -20], [8.0, 0.8, -30], [5.0, 0.0, 0], [6.0, 0.2, 0]])
    how = plain(3, "pitch", rate_hz=25.0)
    found = decode_frames(encode_frames(pitch, how), how)
    np.testing.assert_allclose(found, [[7.0, 0.5, -30], [7.0, 0.85, -25], [5.5, 0.1, 0]], atol=1e-6)


def test_a_reduction_is_json_and_back() -> None:
    x = np.random.default_rng(0).standard_normal((50, 6))
    scale = {"scaling": "dimension", "offset_C": ConstantArray.of(np.zeros(2)), "scale_C": ConstantArray.of(np.ones(2))}
    for how in (
        plain(6),
        plain(6, rate_hz=12.5, basis=basis_of(x, 2, whiten=True), dtype="int8", **scale),
        plain(6, "probabilities", topk=3, dtype="float16"),
    ):
        again = Reduction.from_dict(json.loads(json.dumps(how.to_dict())))
        assert again == how
        assert hash(again) == hash(how)
        for name, value in encode_frames(x, how).items():
            np.testing.assert_array_equal(encode_frames(x, again)[name], value)


def test_bytes_are_those_of_the_members() -> None:
    x = np.random.default_rng(0).random((50, 300))
    zeros_C, ones_C = ConstantArray.of(np.zeros(300)), ConstantArray.of(np.ones(300))
    for how in (
        plain(300, dtype="float16"),
        plain(300, dtype="int8"),
        plain(300, basis=basis_of(x, 20), dtype="int8", rate_hz=25.0),
        plain(300, "probabilities", topk=7, dtype="int8"),
        plain(300, dtype="int4", scaling="dimension", offset_C=zeros_C, scale_C=ones_C),
    ):
        members = encode_frames(x, how)
        assert how.bytes_per_frame * len(members[VALUES]) == sum(m.nbytes for m in members.values())
        assert how.bytes_per_second == how.bytes_per_frame * (how.rate_hz or 50.0)


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        ("representation", {"rate_hz": 60.0}, "up to 50 Hz"),
        ("representation", {"topk": 2}, "events"),
        ("probabilities", {"topk": 9}, "6 probabilities"),
        ("representation", {"dtype": "int2"}, "expected"),
        ("representation", {"dtype": "int4"}, "too few steps for a scale by frame"),
        ("representation", {"dtype": "int8", "scaling": "dimension"}, "per dimension"),
        (
            "pitch",
            {
                "basis": PrincipalBasis(
                    ConstantArray.of(np.zeros(6)), ConstantArray.of(np.eye(6)), ConstantArray.of(np.ones(6))
                )
            },
            "meaning",
        ),
        (
            "representation",
            {"basis": PrincipalBasis(ConstantArray.of([0]), ConstantArray.of(np.eye(5)), ConstantArray.of([1]))},
            "6 dimensions",
        ),
    ],
)
def test_what_does_not_go_together(kind: str, how: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plain(6, kind, **how)


def test_members_that_are_not_of_the_reduction_are_refused() -> None:
    p = np.random.default_rng(0).random((5, 30)).astype(np.float32)
    how = plain(30, "probabilities", topk=2, dtype="int8")
    members = encode_frames(p, how)
    for wrong, message in (
        ({SCALE: members[SCALE][:4]}, "member scale is float32"),
        ({VALUES: members[VALUES].astype(np.float32)}, "member values is float32"),
        ({INDEX: members[INDEX] + np.uint8(200)}, "index 2.. of 30 dimensions"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_frames({**members, **wrong}, how)
    with pytest.raises(ValueError, match="scale is missing"):
        decode_frames({VALUES: members[VALUES], INDEX: members[INDEX]}, how)
    for values in ({}, {VALUES: np.int8(3)}):
        with pytest.raises(ValueError, match="member values is"):
            decode_frames({**values, SCALE: members[SCALE]}, how)  # pyright: ignore[reportArgumentType]
    data = plain(30, basis=basis_of(p, 2)).to_dict()
    data["basis"]["mean"]["shape"] = [10**9]
    with pytest.raises(InputError, match="not a reduction"):
        Reduction.from_dict(data)
