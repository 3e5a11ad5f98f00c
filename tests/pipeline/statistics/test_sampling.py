"""Samples of large sets: every frame as likely, the same for any workers, near the whole; what is known is not lost."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coat.pipeline.reductions.evaluation_sample import EvaluationSample
from coat.pipeline.reductions.fit import fit_components
from coat.pipeline.statistics.compute import (
    Moments,
    compute_statistics,
    on_workers,
    sampled_statistics,
    target_moments,
)
from coat.pipeline.statistics.pca import PCA
from coat.pipeline.statistics.sampling import PLACE_CHUNKS, PLACES, SAMPLE_FRAMES, WHOLE_FRAMES, choose_sample
from coat.pipeline.statistics.saved_statistics import read_statistics
from coat.pipeline.statistics.statistics import QUANTILES, Statistics
from coat.pipeline.statistics.sums import Sums
from coat.pipeline.store.frames_writer import CHUNK_FRAMES
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet
from tests.pipeline.statistics.test_statistics import put_all, spec_of

FRAMES = WHOLE_FRAMES + 1_500_000


@pytest.fixture(scope="module")
def frames_ND() -> NDArray[np.float16]:
    """Utterances of 500 frames that differ as much as the frames in them."""
    rng = np.random.default_rng(0)
    of_utterance = np.repeat(rng.standard_normal((-(-FRAMES // 500), 2), np.float32), 500, axis=0)[:FRAMES]
    return (of_utterance + rng.standard_normal((FRAMES, 2), np.float32) + [0, 40]).astype(np.float16)


@pytest.fixture
def targets(frames_ND: NDArray[np.float16], tmp_path: Path) -> TargetSet:
    return put_all(tmp_path, spec_of(2, dtype="float16"), frames_ND, units=40)


def test_a_large_set_is_sampled_alike_by_any_workers(targets: TargetSet, frames_ND: NDArray[np.float16]) -> None:
    def moments(workers: int) -> Moments:
        Path(targets.url, "statistics.json").unlink(missing_ok=True)
        return target_moments(TargetSet.open(targets.url), on_workers(workers, None))

    here, by_two = moments(0), moments(2)
    assert here.mean_D.tobytes() == by_two.mean_D.tobytes()
    assert here.std_D.tobytes() == by_two.std_D.tobytes()
    truth_ND = frames_ND.astype(np.float64)
    assert (np.abs(here.mean_D - truth_ND.mean(0)) < 0.04 * truth_ND.std(0)).all()
    np.testing.assert_allclose(here.std_D, truth_ND.std(0), rtol=0.04)
    saved = read_statistics(targets)
    assert saved is not None
    told = saved["sampled"]
    assert (told["of_frames"], told["units"], told["seed"]) == (FRAMES, 40, 0)
    assert told["frames"] == saved["frames"] == here.frames
    assert 0.75 * SAMPLE_FRAMES < here.frames <= SAMPLE_FRAMES  # places of one part and the next may overlap
    again = target_moments(TargetSet.open(targets.url))
    assert again.mean_D.tobytes() == here.mean_D.tobytes()


def test_what_is_known_of_all_frames_is_used_and_kept(targets: TargetSet, frames_ND: NDArray[np.float16]) -> None:
    sampled_statistics(targets, covariance=False)
    whole = compute_statistics(targets, covariance=False)
    assert whole.sample is None
    saved = read_statistics(targets)
    assert saved is not None
    assert "sampled" not in saved
    assert saved["frames"] == FRAMES
    assert (
        compute_statistics(targets, covariance=False, may_sample=True).units_read == ()
    )  # of saved sums, which are whole
    with_components = compute_statistics(targets, covariance=True, may_sample=True)
    assert with_components.sample is not None  # no sums with a covariance are saved
    assert with_components.pca is not None
    assert read_statistics(targets) == saved
    np.testing.assert_allclose(target_moments(targets).mean_D, frames_ND.astype(np.float64).mean(0), rtol=1e-9)


def test_a_set_that_is_no_larger_than_two_samples_is_read_whole(tmp_path: Path) -> None:
    frames_N1 = np.random.default_rng(0).standard_normal((WHOLE_FRAMES, 1)).astype(np.float16)
    targets = put_all(tmp_path, spec_of(1, dtype="float16"), frames_N1, units=4)
    moments = target_moments(targets)
    assert moments.frames == WHOLE_FRAMES
    assert "sampled" not in (read_statistics(targets) or {"sampled": ""})


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text("abcdef", min_size=1), st.integers(0, 40_000), min_size=1).filter(
        lambda u: any(u.values())
    ),
    st.integers(1, 60),
)
def test_a_sample_lies_in_its_units(unit_frames: dict[str, int], places: int) -> None:
    sample = choose_sample(unit_frames, places)
    counted = 0
    for unit in sample.chunks:
        held = np.zeros(unit_frames[unit], bool)
        for first, count in sample.spans(unit):
            assert 0 <= first < first + count <= unit_frames[unit]
            held[first : first + count] = True
        np.testing.assert_array_equal(sample.contains(unit, 0, unit_frames[unit]), held)
        counted += int(held.sum())
    assert sample.frames == counted > 0
    assert counted <= places * PLACE_CHUNKS * CHUNK_FRAMES
    assert sample == choose_sample(dict(reversed(unit_frames.items())), places)


def test_each_part_of_a_set_is_taken_and_each_frame_as_often() -> None:
    unit_frames = {f"u{i:02d}": 100 * CHUNK_FRAMES for i in range(50)}
    taken = np.zeros(50 * 100)
    for seed in range(200):
        sample = choose_sample(unit_frames, places=50, seed=seed)
        assert len(sample.chunks) == 50
        for u, unit in enumerate(sorted(unit_frames)):
            taken[u * 100 + np.array(sample.chunks[unit])] += 1
    inner = taken.reshape(50, 100)[:, 2:-2]  # a place is not cut at the end of its unit, but moved
    assert abs(inner.mean() - 200 * PLACE_CHUNKS / 100) < 0.1
    assert inner.sum(axis=0).std() < 3 * np.sqrt(200 * 50 * PLACE_CHUNKS / 100)
    assert choose_sample(dict.fromkeys(unit_frames, 10**6)).frames > 0.8 * PLACES * PLACE_CHUNKS * CHUNK_FRAMES


def test_components_are_fitted_without_the_utterances_that_they_are_measured_on() -> None:
    """Of a sample, which has some of their frames."""
    rng = np.random.default_rng(0)
    unit_frames = {"a": 40_000, "b": 30_000}
    frames = {u: rng.standard_normal((n, 4)) * [4, 3, 2, 1] for u, n in unit_frames.items()}
    sample = choose_sample(unit_frames, places=20)
    rows = [Row("a", f"r{i}", "0", "0", 1.0, i * 9_000, 5_000, "ok", None) for i in range(4)]
    utterances = tuple(frames["a"][r.first : r.first + r.frames] for r in rows)
    taken = {u: sample.contains(u, 0, n) for u, n in unit_frames.items()}
    counted_ND = np.concatenate([frames[u][taken[u]] for u in unit_frames])
    apart = taken["a"].copy()
    for r in rows:
        apart[r.first : r.first + r.frames] = False
    assert 0 < apart.sum() < taken["a"].sum()
    sums = Sums.of(counted_ND, "representation", True)
    statistics = Statistics(spec_of(4), 2, 1.0, sums, sums.histogram.quantiles(QUANTILES), False, sample=sample)
    found = fit_components(statistics, EvaluationSample(utterances, True, tuple(rows)))
    rest_ND = np.concatenate([frames["a"][apart], frames["b"][taken["b"]]])
    truth = PCA.of(rest_ND.mean(0), np.cov(rest_ND, rowvar=False, bias=True))
    np.testing.assert_allclose(found.mean_D, truth.mean_D, atol=1e-9)
    np.testing.assert_allclose(found.variance_C, truth.variance_C, rtol=1e-9)
