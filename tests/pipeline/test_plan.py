"""Units: stable under resume, small in padding, and every row in exactly one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.extractors.expert import Options
from coat.manifests import Utterance
from coat.pipeline.plan import UNIT_ROWS, UNIT_SECONDS, make_plan
from tests.pipeline.experts import Level

SPEC = Level(Options()).spec


def corpus(durations: list[float]) -> list[Utterance]:
    return [
        Utterance(id=f"u{i}", audio=f"/a/{i}.wav", audio_filepath=f"{i}.wav", duration=d, row=i + 1)
        for i, d in enumerate(durations)
    ]


durations = st.lists(st.floats(0.0, 40.0), min_size=1, max_size=300)


@given(durations)
@settings(deadline=None)
def test_every_row_is_in_exactly_one_unit(lengths: list[float]) -> None:
    plan = make_plan(corpus(lengths), SPEC)
    digests = [r.digest for u in plan.units for r in u.rows]
    assert sorted(digests) == sorted(u.digest for u in corpus(lengths))


@given(durations, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_units_that_are_done_leave_the_others_as_they_were(lengths: list[float], random) -> None:
    whole = make_plan(corpus(lengths), SPEC)
    done = {u.name for u in whole.units if random.random() < 0.5}
    covered = {r.digest for u in whole.units if u.name in done for r in u.rows}
    rest = make_plan(corpus(lengths), SPEC, covered)
    assert [u.name for u in rest.units] == [u.name for u in whole.units if u.name not in done]


def test_units_are_sorted_and_bounded() -> None:
    plan = make_plan(corpus([(i * 7919 % 3000) / 100 for i in range(6000)]), SPEC)
    assert all(u.seconds <= UNIT_SECONDS and len(u.rows) <= UNIT_ROWS for u in plan.units)
    assert all(u.rows[i].seconds <= u.rows[i + 1].seconds for u in plan.units for i in range(len(u.rows) - 1))


def test_bytes_of_targets_bound_a_unit() -> None:
    plan = make_plan(corpus([10.0] * 400), SPEC, unit_bytes=60_000)  # Level: 600 bytes a second
    assert {len(u.rows) for u in plan.units} == {10}
    assert plan.bytes == 400 * 10 * 600


def test_a_corpus_that_grew_gives_units_of_new_rows_alone() -> None:
    old = corpus([5.0] * 100)
    new = old + [Utterance(id=f"n{i}", audio="/a/n.wav", audio_filepath="n.wav", duration=5.0) for i in range(10)]
    plan = make_plan(new, SPEC, {u.digest for u in old})
    assert sorted(r.utterance.id for u in plan.units for r in u.rows) == [f"n{i}" for i in range(10)]


def test_of_equal_ids_the_second_is_at_fault_whatever_its_audio() -> None:
    a = Utterance(id="x", audio="/a.wav", audio_filepath="a.wav", duration=1.0, row=1)
    b = Utterance(id="x", audio="/b.wav", audio_filepath="b.wav", duration=1.0, row=2)
    plan = make_plan([a, b, a], SPEC)
    faults = {r.digest: r.fault for u in plan.units for r in u.rows}
    assert len(faults) == 3
    assert faults[a.digest] is None
    assert sorted(f for f in faults.values() if f) == [
        "duplicate_id: row 1 repeats the id of row 1",
        "duplicate_id: row 2 repeats the id of row 1",
    ]


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_halves_hold_all_rows(rows: int) -> None:
    (unit,) = make_plan(corpus([1.0] * rows), SPEC).units
    left, right = unit.halves()
    assert left.rows + right.rows == unit.rows
    assert left.rows
    assert right.rows
