"""`coat plan` against what an extract then does."""

import json
from pathlib import Path

import pytest

from coat.extractors.expert import Options
from coat.manifests import Manifest
from coat.manifests.errors import InputError, RunError
from coat.pipeline import extract
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.plan.planning import make_plan
from coat.pipeline.status.calibration import padded_seconds, rows_of_all_lengths
from coat.pipeline.status.forecast import ForecastOptions, forecast, total
from tests.integration.helpers import coat
from tests.pipeline.conftest import Corpus
from tests.pipeline.experts import Broken, Level, Slow

LEVEL, SLOW, BROKEN = (f"tests.pipeline.experts:{c.__name__}" for c in (Level, Slow, Broken))
HERE = Resources(workers=0, device="cpu")


def files_below(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_bytes_units_and_hours_are_those_of_the_extract(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = Manifest.read(str(make_corpus(60)))
    store = str(tmp_path / "targets")
    (said,) = forecast(manifest, store, [LEVEL], Options(), ForecastOptions())
    (done,) = extract(manifest, store, [LEVEL], resources=HERE)
    assert (said.rows, said.covered, said.units) == (60, 0, done.units_done)
    assert said.bytes == pytest.approx(done.bytes, rel=0.02)
    assert said.hours * 3600 == pytest.approx(done.audio_seconds, rel=0.001)
    (after,) = forecast(manifest, store, [LEVEL], Options(), ForecastOptions(calibrate=4))
    assert (after.covered, after.units, after.bytes, after.seconds) == (60, 0, 0, 0.0)


def test_the_measured_time(make_corpus: Corpus, tmp_path: Path) -> None:
    """Slow sleeps 80 ms for a batch, and a batch holds 20 s of audio: a speed that is known beforehand."""
    manifest = Manifest.read(str(make_corpus(120)))
    (said,) = forecast(manifest, str(tmp_path / "targets"), [SLOW], Options(), ForecastOptions(calibrate=60))
    slept = said.hours * 3600 / Slow.batch_seconds * 0.08
    assert said.seconds is not None
    assert 0.9 * slept < said.seconds < 10 * slept  # never faster; decoding on a loaded machine is slow
    assert said.speed == pytest.approx(said.hours * 3600 / said.seconds)


def test_time_and_cost_at_a_given_speed(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = Manifest.read(str(make_corpus(90)))
    rates = ForecastOptions(speed=2.0, workers=2, gpus_per_worker=0.5, gpu_hour_price=3.0)
    found = forecast(manifest, str(tmp_path / "targets"), [LEVEL, SLOW], Options(), rates)
    for f in found:
        assert f.units >= 2
        assert f.seconds == pytest.approx(f.hours * 3600 / 2.0 / 2)
        assert f.cost == pytest.approx(f.hours / 2.0 * 0.5 * 3.0)
    whole = total(found)
    assert whole["cost"] == pytest.approx(sum(f.cost or 0 for f in found))
    assert whole["seconds"] == pytest.approx(sum(f.seconds or 0 for f in found))
    unknown = total(forecast(manifest, str(tmp_path / "targets"), [LEVEL], Options(), ForecastOptions()))
    assert (unknown["seconds"], unknown["cost"]) == (None, None)


def test_clips_of_all_lengths_are_measured(make_corpus: Corpus) -> None:
    expert = Level(Options())
    plan = make_plan(Manifest.read(str(make_corpus(100))), expert.spec)
    rows = [r for unit in plan.units for r in unit.rows]
    chosen = rows_of_all_lengths(plan.units, 10)
    mean = sum(padded_seconds(expert, r.seconds) for r in chosen) / 10
    assert len({r.digest for r in chosen}) == 10
    assert mean == pytest.approx(plan.seconds / len(rows), rel=0.05)
    assert {r.digest for r in rows_of_all_lengths(plan.units, 1000)} == {r.digest for r in rows}


def test_what_cannot_be_told_is_refused(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = Manifest.read(str(make_corpus(6)))
    with pytest.raises(InputError, match="one of them"):
        ForecastOptions(speed=1.0, calibrate=1)
    with pytest.raises(InputError, match="--gpu-hour-price"):
        ForecastOptions(gpu_hour_price=1.0)
    with pytest.raises(RunError, match=r"none of 3 clips.*no such kernel"):
        forecast(manifest, str(tmp_path / "t"), [BROKEN], Options(), ForecastOptions(calibrate=3))


def test_the_command_writes_nothing(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(12)
    store = tmp_path / "targets"
    asked = ["plan", "--expert", "pitch", "--expert", "mel", "--manifest", manifest, "--store", store]
    before = files_below(tmp_path)
    found = json.loads(coat(*asked, "--calibrate", 4, "--gpu-hour-price", 2, "--json").stdout)
    assert files_below(tmp_path) == before
    assert not store.exists()
    assert [f["expert"] for f in found["experts"]] == ["pitch", "mel"]
    assert all(f["seconds"] > 0 and f["cost"] > 0 and f["speed"] > 0 for f in found["experts"])
    assert found["total"]["bytes"] == sum(f["bytes"] for f in found["experts"])
    shown = coat(*asked).stdout
    assert "total" in shown
    assert "give --speed or --calibrate" in shown
