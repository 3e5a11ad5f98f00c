"""Statistics: equal to numpy's whatever the blocks, units read once, and saved sums that are stale or damaged seen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from coat.manifests import RunError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.statistics import saved_sums
from coat.pipeline.statistics.compute import compute_statistics, target_moments
from coat.pipeline.statistics.histogram import BINS
from coat.pipeline.statistics.saved_statistics import PCA_FILE, STATISTICS_FILE, own_digest, read_statistics
from coat.pipeline.statistics.statistics import FORMAT, QUANTILES, Statistics
from coat.pipeline.statistics.sums import Sums
from coat.pipeline.store import frames_reader
from coat.pipeline.store.frames_reader import open_frames
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_reader import UnitFrames
from coat.pipeline.store.unit_writer import commit_unit, write_spec

EXACT = 1e-6  # of the issue; relative to a dimension's own size


def spec_of(dim: int, kind: str = "representation", dtype: str = "float32", **more: Any) -> TargetSpec:
    fields = {"expert": "e", "version": 1, "family": "speech", "rate_hz": 50.0, "start_s": 0.0, "sample_rate": 16000}
    return TargetSpec(kind=kind, dim=dim, dtype=dtype, min_samples=1, **fields | more)  # pyright: ignore[reportArgumentType]


def put(root: Path, spec: TargetSpec, unit: str, frames_ND: NDArray[Any]) -> TargetSet:
    """Commit one unit of one row, and open the set as it is then."""
    url = TargetStore(str(root)).set_url(spec)
    write_spec(url, spec)
    row = Row("", unit, f"{len(unit):016x}", "0", len(frames_ND) / 50, 0, len(frames_ND), "ok", None)
    commit_unit(url, unit, frames_ND.astype(spec.dtype), [row], {})
    return TargetSet.open(url)


def put_all(root: Path, spec: TargetSpec, frames_ND: NDArray[Any], units: int = 3) -> TargetSet:
    for i, part_ND in enumerate(np.array_split(frames_ND, units)):
        put(root, spec, f"unit-{i}", part_ND)
    return TargetStore(str(root)).target_set(spec.expert)


def correlated(frames: int, dim: int, seed: int = 0) -> NDArray[np.float64]:
    """Dimensions of very different means and scales, which go together."""
    rng = np.random.default_rng(seed)
    mixed_ND = rng.standard_normal((frames, dim)) * np.geomspace(1, 0.01, dim) @ rng.standard_normal((dim, dim))
    return mixed_ND * np.geomspace(0.01, 10, dim) + np.linspace(-30, 30, dim)


def check(found: Statistics, frames_ND: NDArray[Any]) -> None:
    """Against numpy in float64, over what is stored."""
    x = frames_ND.astype(np.float64)
    size_D = np.abs(x).max(axis=0)
    for ours, truth in [
        (found.sums.mean_D, x.mean(0)),
        (found.sums.std_D, x.std(0)),
        (found.sums.low_D, x.min(0)),
        (found.sums.high_D, x.max(0)),
        (found.quantiles_QD, np.quantile(x, QUANTILES, axis=0)),
    ]:
        assert np.abs((ours - truth) / size_D).max() < EXACT
    truth_DD = np.cov(x, rowvar=False, bias=True)
    scale_DD = np.outer(x.std(0), x.std(0))
    assert np.abs((found.sums.covariance_DD - truth_DD) / scale_DD).max() < EXACT
    assert found.pca is not None
    np.testing.assert_allclose(found.pca.variance_C.sum(), truth_DD.trace(), rtol=EXACT)
    assert (np.diff(found.pca.variance_C) <= 0).all()
    np.testing.assert_allclose(found.pca.axes_CD @ found.pca.axes_CD.T, np.eye(x.shape[1]), atol=1e-9)
    coordinates_NC = (x - found.pca.mean_D) @ found.pca.axes_CD.T
    np.testing.assert_allclose(coordinates_NC.var(0), found.pca.variance_C, rtol=EXACT, atol=EXACT * size_D.max() ** 2)
    np.testing.assert_allclose(coordinates_NC @ found.pca.axes_CD + found.pca.mean_D, x, atol=1e-9 * size_D.max())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_equal_to_numpy(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over three units of several blocks, of which one is no multiple of a chunk."""
    monkeypatch.setattr(frames_reader, "BLOCK_VALUES", 512 * 24)
    frames_ND = correlated(3333, 24).astype(dtype)
    targets = put_all(tmp_path, spec_of(24, dtype=dtype), frames_ND)
    assert targets.dask().numblocks == (9, 1)
    check(compute_statistics(targets), frames_ND)
    check(compute_statistics(targets), frames_ND)  # of saved sums


def test_sums_that_float16_cannot_hold(tmp_path: Path) -> None:
    frames_ND = np.full((5000, 2), 1000.0)
    frames_ND[::2, 0] += 1
    found = compute_statistics(put_all(tmp_path, spec_of(2, dtype="float16"), frames_ND))
    np.testing.assert_allclose(found.sums.mean_D, [1000.5, 1000.0])
    np.testing.assert_allclose(found.sums.std_D, [0.5, 0.0])
    assert found.dead_D.tolist() == [False, True]


def test_large_means_do_not_swallow_small_deviations(tmp_path: Path) -> None:
    frames_ND = 1e4 + np.random.default_rng(0).standard_normal((4000, 3))
    frames_ND = frames_ND.astype(np.float32)
    check(compute_statistics(put_all(tmp_path, spec_of(3), frames_ND)), frames_ND)


def test_nan_and_infinity_are_counted_and_left_out(tmp_path: Path) -> None:
    frames_ND = correlated(1000, 4)
    frames_ND[::10, 0] = np.nan
    frames_ND[5::50, 1] = np.inf
    frames_ND[7, 1] = -np.inf
    frames_ND[:, 3] = np.nan
    targets = put_all(tmp_path, spec_of(4, dtype="float32"), frames_ND)
    found = compute_statistics(targets)
    assert found.sums.nan_D.tolist() == [100, 0, 0, 1000]
    assert found.sums.inf_D.tolist() == [0, 21, 0, 0]
    stored_ND = frames_ND.astype(np.float32).astype(np.float64)
    for d in range(3):
        x = stored_ND[np.isfinite(stored_ND[:, d]), d]
        assert found.sums.mean_D[d] == pytest.approx(x.mean(), abs=1e-9)
        assert found.sums.std_D[d] == pytest.approx(x.std(), abs=1e-9)
        np.testing.assert_allclose(found.quantiles_QD[:, d], np.quantile(x, QUANTILES))
    assert found.sums.whole == 0
    assert found.pca is None
    saved = read_statistics(targets)
    assert saved is not None
    assert (saved["mean"][3], saved["min"][3], saved["max"][3], saved["quantiles"]["0.5"][3]) == (0.0, None, None, None)


def test_what_kinds_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    p_ND = rng.random((700, 3)) ** [1, 2, 8]
    found = compute_statistics(put_all(tmp_path / "a", spec_of(3, "probabilities", family="events"), p_ND))
    np.testing.assert_allclose(found.event_share_D, (p_ND.astype(np.float32) >= 0.5).mean(0))  # pyright: ignore
    p_ND /= p_ND.sum(1, keepdims=True)
    found = compute_statistics(put_all(tmp_path / "b", spec_of(3, "distribution", family="affect"), p_ND))
    np.testing.assert_allclose(found.event_share_D, np.bincount(p_ND.argmax(1)) / 700)  # pyright: ignore
    found = compute_statistics(put_all(tmp_path / "c", spec_of(3, "pitch", family="pitch"), p_ND))
    assert found.voiced_share == pytest.approx((p_ND[:, 1] >= 0.5).mean())
    assert found.event_share_D is None


def test_only_new_units_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    true_read = UnitFrames.read

    def watched(unit: UnitFrames, spans: Any) -> list[NDArray[Any]]:
        read.append(Path(unit.url).parent.name)
        return true_read(unit, spans)

    monkeypatch.setattr(UnitFrames, "read", watched)
    spec, frames_ND = spec_of(6), correlated(2000, 6).astype(np.float32)
    targets = put_all(tmp_path, spec, frames_ND, units=4)
    compute_statistics(targets, exact_values=0)
    assert sorted(read) == ["unit-0", "unit-1", "unit-2", "unit-3"]
    read.clear()
    assert compute_statistics(targets, exact_values=0).units_read == ()
    target_moments(targets)
    assert read == []
    more_ND = correlated(500, 6, seed=1).astype(np.float32)
    targets = put(tmp_path, spec, "unit-5", more_ND)
    assert read_statistics(targets) is None  # statistics.json is of other units
    found = compute_statistics(targets, exact_values=0)
    assert (found.units_read, read) == (("unit-5",), ["unit-5"])
    check(compute_statistics(targets), np.concatenate([frames_ND, more_ND]))


def test_files_of_gone_units_and_damaged_files_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_sums, "GROUP_BYTES", 1)  # a file a unit
    spec, frames_ND = spec_of(3), correlated(900, 3).astype(np.float32)
    targets = put_all(tmp_path, spec, frames_ND)
    compute_statistics(targets, exact_values=0)
    saved = sorted(Path(targets.url, "statistics").glob("*.npz"))
    assert len(saved) == 3 + 1
    hurt = next(p for p in saved if p.name != PCA_FILE)
    data = bytearray(hurt.read_bytes())
    data[len(data) // 2] ^= 1
    hurt.write_bytes(data)
    again = compute_statistics(targets)
    assert len(again.units_read) == 1
    assert [f"{hurt.name} is not used: it was damaged" in why for why in again.dropped_files] == [True]
    check(again, frames_ND)
    # a unit that is repaired with other frames
    unit = Path(targets.url, "units", "unit-1")
    (unit / "done.json").unlink()
    open_frames.cache_clear()
    targets = put(tmp_path, spec, "unit-1", frames_ND[:200] * 2)
    again = compute_statistics(targets)
    assert again.units_read == ("unit-1",)
    assert len(again.dropped_files) == 1
    assert "its units are not those of the store any more" in again.dropped_files[0]
    check(again, np.concatenate([frames_ND[:300], frames_ND[:200] * 2, frames_ND[600:]]))
    assert len(list(Path(targets.url, "statistics").glob("*.npz"))) == 3 + 1


def test_a_damaged_or_older_summary_is_not_believed(tmp_path: Path) -> None:
    frames_ND = correlated(900, 3).astype(np.float32)
    targets = put_all(tmp_path, spec_of(3), frames_ND)
    truth = target_moments(targets)
    np.testing.assert_allclose(truth.mean_D, frames_ND.astype(np.float64).mean(0), rtol=1e-12)
    path = Path(targets.url, STATISTICS_FILE)
    data = json.loads(path.read_text())
    assert data["format"] == FORMAT
    assert data["statistics_xxh3"] == own_digest(data)
    for wrong in (
        json.dumps(data | {"mean": [0, 0, 0]}),
        '{"units": "1", "frames": 3, "mean": [0], "std": [1]}',
        "[",
        "3",
    ):
        path.write_text(wrong)
        np.testing.assert_array_equal(target_moments(targets).mean_D, truth.mean_D)


def test_sums_without_a_covariance_are_made_anew_where_one_is_asked_for(tmp_path: Path) -> None:
    frames_ND = correlated(900, 3).astype(np.float32)
    targets = put_all(tmp_path, spec_of(3), frames_ND)
    target_moments(targets)
    assert not Path(targets.url, "statistics", PCA_FILE).exists()
    found = compute_statistics(targets)
    assert len(found.units_read) == 3
    check(found, frames_ND)
    with np.load(Path(targets.url, "statistics", PCA_FILE)) as held:
        np.testing.assert_array_equal(held["axes"], found.pca.axes_CD)  # pyright: ignore
    assert compute_statistics(targets, covariance=False).units_read == ()


def test_many_files_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_sums, "MAX_GROUPS", 2)
    spec, frames_ND = spec_of(3), correlated(600, 3).astype(np.float32)
    targets = put(tmp_path, spec, "unit", frames_ND[:0])
    for i in range(6):
        targets = put(tmp_path, spec, f"unit-{i}", frames_ND[i * 100 : i * 100 + 100])
        assert compute_statistics(targets).units_read == (f"unit-{i}",)
        assert len(saved_sums.saved_sums_files(targets)) <= 4
    check(compute_statistics(targets), frames_ND)


def test_nothing_was_extracted(tmp_path: Path) -> None:
    spec = spec_of(3)
    write_spec(TargetStore(str(tmp_path)).set_url(spec), spec)
    targets = TargetStore(str(tmp_path)).target_set("e")
    found = compute_statistics(targets)
    assert (found.sums.frames, found.pca, found.units_read) == (0, None, ())
    assert np.isnan(found.quantiles_QD).all()
    assert target_moments(targets).std_D.tolist() == [1, 1, 1]


def test_damaged_frames_stop_it_with_the_remedy(tmp_path: Path) -> None:
    targets = put_all(tmp_path, spec_of(3), correlated(900, 3))
    shard = next(Path(targets.url).glob("units/*/frames.zarr/c/0/0"))
    data = bytearray(shard.read_bytes())
    data[50] ^= 1
    shard.write_bytes(data)
    open_frames.cache_clear()
    with pytest.raises(RunError, match="coat verify --repair"):
        compute_statistics(targets)


finite = st.floats(-6e4, 6e4, width=16) | st.sampled_from([0.0, 1e-7, 3e4])
tables = st.integers(1, 4).flatmap(
    lambda d: arrays(np.float16, st.tuples(st.integers(1, 40), st.just(d)), elements=finite)
)


@given(tables, st.data())
@settings(max_examples=60, deadline=None)
def test_sums_of_parts_are_the_sums_of_the_whole(frames_ND: NDArray[Any], data: st.DataObject) -> None:
    """And the histogram of the whole, count for count; through files and back."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(frames_ND)), max_size=4)))
    dim = frames_ND.shape[1]
    parts = [Sums.of(part, "representation", True) for part in np.split(frames_ND, cuts)]
    total = Sums.zero(dim, "representation", True)
    for part in data.draw(st.permutations(parts)):
        total += Sums.from_bytes(part.to_bytes({"u": "1"}))[0]
    x = frames_ND.astype(np.float64)
    size_D = np.abs(x).max(0) + 1e-12
    assert (np.abs(total.mean_D - x.mean(0)) <= 1e-12 * size_D).all()
    assert (np.abs(total.std_D - x.std(0)) <= 1e-7 * size_D).all()
    truth_DD = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    assert (np.abs(total.covariance_DD - truth_DD) <= 1e-12 * np.outer(size_D, size_D)).all()
    whole = Sums.of(frames_ND, "representation", True).histogram
    np.testing.assert_array_equal(total.histogram.exponent_D, whole.exponent_D)
    np.testing.assert_array_equal(total.histogram.first_D, whole.first_D)
    np.testing.assert_array_equal(total.histogram.counts_DB, whole.counts_DB)
    assert (total.histogram.counts_DB.sum(1) == len(x)).all()


@given(tables)
@settings(max_examples=60, deadline=None)
def test_quantiles_are_right_to_a_bin_and_a_bin_is_narrow(frames_ND: NDArray[Any]) -> None:
    x = frames_ND.astype(np.float64)
    sums = Sums.of(frames_ND, "representation", False)
    width_D = sums.histogram.width_D
    assert (np.abs(sums.histogram.quantiles(QUANTILES) - np.quantile(x, QUANTILES, axis=0)) <= width_D).all()
    range_D = np.ptp(x, axis=0)
    assert (width_D <= np.maximum(range_D * 2 / (BINS - 1), np.abs(x).max(0) * 2.0**-38 + 2.0**-64)).all()
