"""The benchmark of planning at scale, small: that what it measures is right."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale, scale_store
from coat.pipeline.plan.planning import make_plan
from coat.pipeline.status.status import status
from coat.pipeline.store.layout import ROWS
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import commit_unit, rows_parquet, write_spec

N = 20_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    place = tmp_path_factory.mktemp("scale")
    return place / "s", scale_store.synthesise(place / "s", N)


def test_the_units_that_are_left_are_those_that_were_not_committed(made: tuple[Path, dict[str, int]]) -> None:
    place, left = made
    plan = scale_store.resumed_plan(place)
    whole = make_plan(plan.units.manifest, plan.spec)
    assert (len(plan.units), plan.rows - plan.covered) == (left["units"], left["rows"])
    (targets,) = TargetStore(str(place / "store")).target_sets()
    names = [u.name for u in whole.units]
    assert set(names) - targets.done.keys() == {u.name for u in plan.units}
    assert 0 < len(plan.units) < len(names) / 20


def test_status_counts_the_rows_of_the_manifest(made: tuple[Path, dict[str, int]]) -> None:
    place, left = made
    plan = scale_store.resumed_plan(place)
    (found,) = status(str(place / "store"), plan.units.manifest)
    to_do = np.concatenate([plan.units.order])
    failed = N // scale_store.FAILED_EVERY - int((to_do % scale_store.FAILED_EVERY == 0).sum())
    assert (found.missing, found.failed, found.ok) == (left["rows"], failed, N - left["rows"] - failed)
    assert found.reasons == {"unreadable": failed}
    assert len(found.failures) == failed


def test_its_done_json_has_what_a_worker_writes(made: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    place, _ = made
    (targets,) = TargetStore(str(place / "store")).target_sets()
    name = next(iter(targets.done))
    done = targets.read_done(name)
    assert done is not None
    facts = {k: done[k] for k in ("seconds", "padded_audio_seconds", "heard_audio_seconds", "device")}
    write_spec(str(tmp_path), targets.spec)
    frames = np.zeros((0, targets.spec.dim), targets.spec.dtype)
    assert commit_unit(str(tmp_path), name, frames, targets.read_rows(name), facts).keys() == done.keys()


def test_its_row_tables_are_those_that_a_worker_commits(made: tuple[Path, dict[str, int]]) -> None:
    place, _ = made
    (targets,) = TargetStore(str(place / "store")).target_sets()
    for unit in list(targets.done)[:3]:
        assert Path(targets.unit_url(unit, ROWS)).read_bytes() == rows_parquet(targets.read_rows(unit))


def test_the_commands_find_what_is_left(tmp_path: Path) -> None:
    """`measure` compares what plan, resume and status say with what was left."""
    result = scale.measure(tmp_path, 2000, keep=False)
    assert (result["units_to_do"] > 0, result["handed_out"]["rows"]) == (True, 2000)
    assert not list(tmp_path.iterdir())
