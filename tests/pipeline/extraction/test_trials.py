"""Whose fault is a unit that was given up? By who else can do it."""

import pytest

from coat.manifests import RunError
from coat.pipeline.extraction.trials import MAX_STRIKES, Peer, Trials
from coat.pipeline.extraction.unit_queue import UnitTask
from coat.pipeline.plan.units import Unit


def peers(*nodes: str, done: int = 0) -> list[Peer]:
    return [Peer(f"{node}:{i}", node, ready=True, done=done) for i, node in enumerate(nodes)]


def task() -> UnitTask:
    return UnitTask(Unit(()))


def test_who_gives_up_what_another_does_well_is_put_aside_in_the_end() -> None:
    trials = Trials()
    bad, good = peers("a", "b")
    trial = None
    for strike in range(1, MAX_STRIKES + 1):
        unit = task()
        trials.accuse(bad, unit, "gone")
        assert trials.is_accused(bad)
        assert trials.task_for(good, [bad, good]) is unit
        trial = trials.went_well(good, unit)
        assert not trials.is_accused(bad)
        assert (trial is not None) == (strike == MAX_STRIKES)
    assert trial is not None
    assert trial.accused is bad
    assert trial.fault == "gone"


def test_a_unit_that_goes_well_in_between_makes_up_for_a_fault() -> None:
    trials = Trials()
    shaky, good = peers("a", "b")
    for _ in range(3 * MAX_STRIKES):
        unit = task()
        trials.accuse(shaky, unit, "a request was out of retries")
        trials.task_for(good, [shaky, good])
        assert trials.went_well(good, unit) is None
        assert trials.went_well(shaky, task()) is None


def test_two_that_see_the_same_stop_the_run() -> None:
    trials = Trials()
    one, other = peers("a", "b")
    unit = task()
    trials.accuse(one, unit, "gone")
    trials.task_for(other, [one, other])
    with pytest.raises(RunError, match=r"^gone \(a:0 and b:1 see the same; .* run the same command again\)$"):
        trials.accuse(other, unit, "gone")


def test_where_nobody_else_can_try_it_the_run_stops() -> None:
    trials = Trials()
    one, other = peers("a", "b")
    trials.accuse(one, task(), "gone")
    trials.check_judged([one], more_come=True)
    trials.check_judged([one, other], more_come=False)
    with pytest.raises(RunError, match="no other worker is up"):
        trials.check_judged([one], more_come=False)
    trials.accuse(other, task(), "gone")
    with pytest.raises(RunError, match="all 2 workers give up"):
        trials.check_judged([one, other], more_come=False)


def test_another_node_and_who_did_well_before_judges_first() -> None:
    trials = Trials()
    bad, neighbour, stranger, proven = all_ = peers("a", "a", "b", "c")
    proven.done = 3
    unit = task()
    trials.accuse(bad, unit, "gone")
    assert [trials.task_for(p, all_) for p in (bad, neighbour, stranger)] == [None] * 3
    assert trials.task_for(proven, all_) is unit
    assert trials.judge_is_gone(unit)
    assert trials.task_for(neighbour, [bad, neighbour]) is unit  # where there is nobody else


def test_two_units_of_one_hand_are_one_strike() -> None:
    trials = Trials()
    bad, good = peers("a", "b")
    first, second = task(), task()
    trials.accuse(bad, first, "gone")
    trials.accuse(bad, second, "gone")
    assert trials.task_for(good, [bad, good]) is first
    assert trials.task_for(good, [bad, good]) is second
    assert trials.went_well(good, first) is None
    assert trials.is_accused(bad)
    assert trials.went_well(good, second) is None
    assert bad.strikes.total() == 1


def test_a_unit_that_kills_who_tries_it_accuses_nobody() -> None:
    trials = Trials()
    one, other = peers("a", "b")
    unit = task()
    trials.accuse(one, unit, "fails on each row")
    trials.task_for(other, [one, other])
    trials.dissolve(unit)
    assert not trials.is_accused(one)
    assert one.strikes.total() == 0
