"""The budget of a batch after memory ran out: it finds what fits, rests there, and never exceeds the plan."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coat.pipeline.worker.budget import FORGET_PASSES, GOOD_PASSES, BatchBudget, pass_seconds


def simulate(budget: BatchBudget, batches: int, planned: float, room: float) -> list[float]:
    """Passes of clips of a second, of which `room` fit; gives the largest pass of each batch that fitted."""
    largest = []
    for _ in range(batches):
        left = [int(planned)]
        fitted = [0]
        while left:
            clips = left.pop(0)
            cuts = budget.cut([1.0] * clips, pads=True)
            if len(cuts) > 1:
                left = [cut.stop - cut.start for cut in cuts] + left
            elif clips > room:
                budget.ran_out(clips)
                left.insert(0, clips)
            else:
                budget.fitted(clips)
                fitted.append(clips)
        largest.append(max(fitted))
    return largest


@pytest.mark.parametrize("room", [1, 2, 3, 7, 23, 50, 63])
def test_it_comes_to_rest_close_to_what_fits(room: int) -> None:
    budget = BatchBudget()
    simulate(budget, 40, 64, room)
    tried = budget.halvings
    at_rest = simulate(budget, 20, 64, room)
    assert min(at_rest) >= room / 1.25 - 1
    assert max(at_rest) <= room
    passes = 20 * 64 / room
    assert budget.halvings - tried <= 1 + passes / FORGET_PASSES  # no pass that fails again and again
    assert tried <= 14


def test_it_grows_back_to_the_plan_when_memory_is_there_again() -> None:
    budget = BatchBudget()
    simulate(budget, 20, 64, 10)
    grown = simulate(budget, FORGET_PASSES, 64, 1000)
    assert grown[-1] == 64


def test_small_passes_prove_nothing() -> None:
    budget = BatchBudget()
    budget.ran_out(100.0)
    for _ in range(10 * GOOD_PASSES):
        budget.fitted(20.0)
    assert budget.limit == 50.0


@given(st.lists(st.floats(0.1, 40.0), min_size=1, max_size=50), st.floats(0.05, 200.0), st.booleans())
def test_cuts_hold_every_clip_once_within_the_limit(padded: list[float], limit: float, pads: bool) -> None:
    parts = BatchBudget(limit=limit).cut(padded, pads)
    assert [x for part in parts for x in padded[part]] == padded
    for part in parts:
        assert part.stop - part.start == 1 or pass_seconds(padded[part], pads) <= limit


def test_without_want_of_memory_nothing_is_cut() -> None:
    budget = BatchBudget()
    assert len(budget.cut([30.0] * 100, pads=True)) == 1
    budget.fitted(3000.0)
    assert budget.limit == math.inf
