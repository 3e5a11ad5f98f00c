"""Units of several experts that are cut alike go to one worker together; what may kill it goes alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from coat.extractors.expert import Options
from coat.pipeline.extraction.lease import Lease
from coat.pipeline.extraction.run_queue import Handout, RunQueue
from coat.pipeline.extraction.unit_queue import UnitQueue
from coat.pipeline.store.unit_writer import write_spec
from coat.pipeline.worker.config import WorkerConfig
from tests.pipeline.experts import Level, Low
from tests.pipeline.extraction.test_unit_queue import unit

TURNS = {"level": [0, 1, 3], "low": [0, 2, 3]}  # of each unit's cut


@pytest.fixture
def queue(tmp_path: Path) -> RunQueue:
    """Of two experts with three units each, of which two are of the same cuts."""
    queues = []
    for expert in (Level, Low):
        spec = expert(Options()).spec
        set_url = str(tmp_path / spec.expert / spec.fingerprint)
        write_spec(set_url, spec)
        config = WorkerConfig(spec.expert, Options(), set_url, spec, "cpu", 1)
        units = [unit("a", "b"), unit("c", "d"), unit("e")]
        queues.append(UnitQueue(units, range(3), config, Lease(set_url), lambda line: None, turns=TURNS[spec.expert]))
    return RunQueue(queues, lambda line: None)


def shown(handout: Handout | None) -> list[tuple[str, int]]:
    return [(task.expert, task.turn) for task in handout.tasks] if handout else []


def take(queue: RunQueue, **how: bool) -> Handout:
    handout = queue.take(**how)
    assert handout is not None
    assert handout.cut.experts == tuple(task.expert for task in handout.tasks)
    return handout


def test_units_of_a_cut_are_handed_out_together_in_the_order_of_the_run(queue: RunQueue) -> None:
    handouts = [take(queue) for _ in range(4)]
    assert [shown(h) for h in handouts] == [
        [("level", 0), ("low", 0)],
        [("level", 1)],
        [("low", 2)],
        [("level", 3), ("low", 3)],
    ]
    assert [h.cut.number for h in handouts] == [1, 2, 3, 4]
    assert not queue.take()
    assert not queue


def test_units_that_were_in_the_hand_of_a_dead_worker_are_tried_one_by_one(queue: RunQueue) -> None:
    assert not [*queue.worker_died(take(queue).tasks, "crashed")]
    assert not queue.take(idle=False)
    first, second = take(queue), take(queue)
    assert [shown(first), shown(second)] == [[("level", 0)], [("low", 0)]]
    assert first.suspect
    assert second.suspect
    assert [q.worker_deaths for q in queue.queues.values()] == [1, 1]
    assert shown(take(queue)) == [("level", 1)]


def test_a_worker_that_may_be_at_fault_gets_cuts_that_nobody_failed_at(queue: RunQueue) -> None:
    assert not [*queue.worker_died(take(queue).tasks, "device")]
    assert shown(take(queue, untried=True)) == [("level", 1)]
    assert shown(take(queue)) == [("level", 0)]


def test_units_of_a_worker_that_was_put_aside_stay_together(queue: RunQueue) -> None:
    for task in take(queue).tasks:
        queue.given_back(task)
    assert shown(take(queue)) == [("level", 0), ("low", 0)]


def test_the_deadline_is_that_of_the_most_patient_unit_of_the_oldest_cut(queue: RunQueue) -> None:
    quick, slow = take(queue).tasks
    (other,) = take(queue).tasks
    assert (
        queue.deadline([replace(quick, deadline=5.0), replace(slow, deadline=9.0), replace(other, deadline=99.0)])
        == 9.0
    )
