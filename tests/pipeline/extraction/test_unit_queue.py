"""What becomes of a unit whose worker died, or was put aside."""

from pathlib import Path

import pytest

from coat.extractors.expert import Options
from coat.manifests.corpus.utterance import Utterance
from coat.pipeline.extraction.lease import Lease
from coat.pipeline.extraction.unit_queue import UnitQueue, UnitTask
from coat.pipeline.plan.units import PlannedRow, Unit
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_writer import write_spec
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.report import UnitReport
from tests.pipeline.experts import Level


def unit(*names: str) -> Unit:
    rows = (Utterance(id=name, audio=f"{name}.wav", audio_filepath=f"{name}.wav") for name in names)
    return Unit(tuple(PlannedRow(u, u.digest, 60.0) for u in rows))


@pytest.fixture
def queue(tmp_path: Path) -> UnitQueue:
    """Of a unit of one row, one of two, and one of three."""
    spec = Level(Options()).spec
    set_url = str(tmp_path / "level" / spec.fingerprint)
    write_spec(set_url, spec)
    config = WorkerConfig("level", Options(), set_url, spec, "cpu", 1)
    units = [unit("a"), unit("b", "c"), unit("d", "e", "f")]
    return UnitQueue(units, range(3), config, Lease(set_url), lambda line: None)


def take(queue: UnitQueue) -> UnitTask:
    task = queue.take()
    assert task is not None
    return task


def test_a_unit_that_loses_two_devices_is_halved(queue: UnitQueue) -> None:
    take(queue)
    task = take(queue)
    assert not [*queue.worker_died(task, "device")]
    again = take(queue)
    assert again.suspect
    assert again.unit == task.unit
    assert not [*queue.worker_died(again, "device")]
    halves = [take(queue), take(queue)]
    assert [row.utterance.id for half in halves for row in half.unit.rows] == ["b", "c"]
    assert all(half.deadline is None for half in halves)  # nobody knows yet what is slow


def test_a_row_is_not_judged_by_a_device_that_does_nothing_well(queue: UnitQueue) -> None:
    alone = take(queue)
    for _ in range(2):
        assert not [*queue.worker_died(alone, "device")]
        alone = take(queue)
    assert len(alone.unit.rows) == 2  # the row waits
    assert len(queue.unproven) == 1
    queue.finished(alone, UnitReport(alone.unit.name, failed=2))
    assert len(queue.unproven) == 1
    well = take(queue)
    queue.finished(well, UnitReport(well.unit.name, ok=3))
    alone = take(queue)
    assert alone.unit.rows[0].utterance.id == "a"
    (report,) = queue.worker_died(alone, "device")
    assert report.reasons == {"device": 1}
    (row,) = TargetSet.open(queue.config.set_url).rows.values()
    assert (row.id, row.reason) == ("a", "device")


def test_a_worker_that_may_be_at_fault_gets_units_that_nobody_failed_at(queue: UnitQueue) -> None:
    first, second = take(queue), take(queue)
    assert not [*queue.worker_died(first, "device"), *queue.worker_died(second, "device")]
    untried = queue.take(untried=True)
    assert untried is not None
    assert not untried.suspect
    assert queue.take(untried=True) is None
    assert [take(queue).unit, take(queue).unit] == [first.unit, second.unit]


def test_a_unit_of_a_worker_that_was_put_aside_is_no_suspect(queue: UnitQueue) -> None:
    task = take(queue)
    queue.given_back(task)
    assert len(queue) == 3
    assert take(queue) is task
    assert not task.suspect
