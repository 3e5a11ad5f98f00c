"""Fidelity: what is said of a reduction is what numpy says, of utterances that it was not fitted to."""

from pathlib import Path

import numpy as np
import pytest

from coat.manifests import InputError
from coat.manifests.targets.coding import decode_frames, encode_frames
from coat.manifests.targets.reduction import Reduction
from coat.pipeline.reductions.evaluation_sample import EvaluationSample, rows_by_digest, take_evaluation_sample
from coat.pipeline.reductions.fidelity import measure_agreement, measure_fidelity
from coat.pipeline.reductions.fit import fit_components, fit_reduction
from coat.pipeline.statistics.compute import compute_statistics
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import write_spec
from tests.pipeline.statistics.test_statistics import put, spec_of

RANK, DIM = 6, 40


def low_rank(root: Path, utterances: int = 30) -> TargetSet:
    """Frames that move slowly in 6 of 40 dimensions, and a little noise."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((RANK, DIM))
    spec = spec_of(DIM, dtype="float16")
    for i in range(utterances):
        steps = rng.standard_normal((100 + i, RANK)).cumsum(axis=0)
        x = np.stack([np.convolve(s, np.ones(9) / 9, "same") for s in steps.T], axis=1) @ mixing
        put(root, spec, f"u{'x' * i}", x + 0.02 * rng.standard_normal(x.shape) + 3)
    return TargetStore(str(root)).target_set("e")


def test_held_out_utterances_are_not_in_the_fit(tmp_path: Path) -> None:
    targets = low_rank(tmp_path)
    sample = take_evaluation_sample(targets)
    assert (len(sample.utterances), sample.held_out) == (6, True)
    assert [len(a) for a in sample.utterances] == [len(a) for a in take_evaluation_sample(targets).utterances]
    whole = np.asarray(targets.dask().compute(), np.float64)
    held = {frames.tobytes() for utterance in sample.utterances for frames in utterance.astype(np.float64)}
    rest = np.stack([frame for frame in whole if frame.tobytes() not in held])
    assert len(rest) == len(whole) - sum(map(len, sample.utterances))
    components = fit_components(compute_statistics(targets), sample)
    np.testing.assert_allclose(components.mean_D, rest.mean(0), rtol=1e-9)
    truth = np.linalg.eigvalsh(np.cov(rest, rowvar=False, bias=True))[::-1]
    np.testing.assert_allclose(components.variance_C, truth, rtol=1e-6, atol=1e-9)


def test_the_sample_is_the_first_utterances_by_digest(tmp_path: Path) -> None:
    targets = low_rank(tmp_path)
    chosen = sorted((row for row in targets.rows.values() if row.status == "ok"), key=lambda row: row.digest)
    assert list(rows_by_digest(targets)) == chosen
    sample = take_evaluation_sample(targets, max_values=3 * 110 * DIM)
    assert 0 < len(sample.utterances) < len(chosen)
    for row, frames in zip(chosen, sample.utterances, strict=False):
        np.testing.assert_array_equal(targets.read_row(row).frames, frames)


def test_what_is_measured(tmp_path: Path) -> None:
    targets = low_rank(tmp_path)
    found, sample = compute_statistics(targets), take_evaluation_sample(targets)
    how = fit_reduction(found, sample, pca=RANK, dtype="int8", scaling="dimension")
    fidelity = measure_fidelity(sample, how, targets.spec)
    assert fidelity.original == fidelity.at_rate
    assert fidelity.original.explained_variance > 0.999
    assert fidelity.original.cosine > 0.999
    assert fidelity.bytes_per_hour_before == 50 * DIM * 2 * 3600
    assert fidelity.bytes_per_hour == 50 * RANK * 3600
    truth = np.concatenate(sample.utterances).astype(np.float64)
    decoded = np.concatenate([decode_frames(encode_frames(x, how), how) for x in sample.utterances]).astype(np.float64)
    wrong = np.linalg.norm(truth - decoded)
    assert fidelity.original.relative_error == pytest.approx(wrong / np.linalg.norm(truth))
    assert fidelity.original.explained_variance == pytest.approx(1 - wrong**2 / (truth.var(0).sum() * len(truth)))
    cosine = (truth * decoded).sum(1) / np.linalg.norm(truth, axis=1) / np.linalg.norm(decoded, axis=1)
    assert fidelity.original.cosine == pytest.approx(cosine.mean())
    fewer = measure_fidelity(sample, fit_reduction(found, sample, pca=2), targets.spec)
    assert fewer.original.explained_variance < fidelity.original.explained_variance


def test_a_rate_costs_what_moves_faster_and_nothing_more(tmp_path: Path) -> None:
    targets = low_rank(tmp_path)
    found, sample = compute_statistics(targets), take_evaluation_sample(targets)
    fidelity = measure_fidelity(sample, fit_reduction(found, sample, rate_hz=12.5, dtype="float32"), targets.spec)
    assert fidelity.at_rate.relative_error < 1e-6
    assert 0.9 < fidelity.original.explained_variance < 0.9999
    assert fidelity.bytes_per_hour == 12.5 * DIM * 4 * 3600
    assert measure_fidelity(sample, Reduction.of(targets.spec), targets.spec).original.relative_error == 0


@pytest.mark.parametrize("scaling", ["frame", "dimension"])
@pytest.mark.parametrize("whiten", [False, True])
def test_int8_is_near_what_it_is_of(whiten: bool, scaling: str, tmp_path: Path) -> None:
    targets = low_rank(tmp_path)
    found, sample = compute_statistics(targets), take_evaluation_sample(targets)
    for pca in (None, 12):
        how = fit_reduction(found, sample, pca=pca, whiten=whiten, dtype="int8", scaling=scaling)  # pyright: ignore[reportArgumentType]
        assert measure_fidelity(sample, how, targets.spec).original.cosine > 0.99


def test_agreement_of_frames_without_a_direction() -> None:
    zeros = [np.zeros((3, 4))]
    assert measure_agreement(zeros, zeros).cosine == measure_agreement(zeros, zeros).explained_variance == 1.0
    assert measure_agreement(zeros, [np.ones((3, 4))]).relative_error == 1.0


def test_a_small_set_is_not_held_out_and_an_empty_one_refused(tmp_path: Path) -> None:
    targets = low_rank(tmp_path / "a", utterances=2)
    sample = take_evaluation_sample(targets)
    assert isinstance(sample, EvaluationSample)
    assert (len(sample.utterances), sample.held_out) == (1, False)
    with pytest.raises(InputError, match="expected 1 to 40"):
        fit_reduction(compute_statistics(targets), sample, pca=41)
    url = TargetStore(str(tmp_path / "b")).set_url(spec_of(3))
    write_spec(url, spec_of(3))
    with pytest.raises(InputError, match="no targets to measure"):
        take_evaluation_sample(TargetSet.open(url))
