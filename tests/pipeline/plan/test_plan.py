"""Units: stable under resume, small in padding, and every row in exactly one."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.extractors.expert import Options
from coat.manifests import Utterance
from coat.pipeline.plan import unit_cuts
from coat.pipeline.plan.planning import UNIT_SECONDS, ExtractionPlan, make_plan
from coat.pipeline.plan.unit_cuts import UNIT_ROWS
from tests.pipeline.experts import Level

SPEC = Level(Options()).spec


def spans(lengths: list[tuple[int, float]]) -> list[Utterance]:
    """Spans of a few files: (file, seconds) each."""
    return [
        Utterance(id=f"s{i}", audio=f"/a/{f}.wav", audio_filepath=f"{f}.wav", offset=i, duration=d, row=i + 1)
        for i, (f, d) in enumerate(lengths)
    ]


def ids(plan: ExtractionPlan) -> list[str]:
    return sorted(r.utterance.id for u in plan.units for r in u.rows)


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


files_of_spans = st.lists(st.tuples(st.integers(0, 8), st.floats(0.0, 40.0)), min_size=1, max_size=300)


@given(
    durations.map(corpus) | files_of_spans.map(spans), st.randoms(use_true_random=False), st.sampled_from([50, 10**6])
)
@settings(deadline=None)
def test_units_that_are_done_leave_the_others_as_they_were(rows: list[Utterance], random, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_cuts, "WINDOW_ROWS", window)
        whole = make_plan(rows, SPEC)
        done = {u.name for u in whole.units if random.random() < 0.5}
        covered = {r.digest for u in whole.units if u.name in done for r in u.rows}
        rest = make_plan(rows, SPEC, covered)
    assert [u.name for u in rest.units] == [u.name for u in whole.units if u.name not in done]
    assert (rest.rows, rest.covered) == (len(rows), len(covered))
    assert rest.seconds == pytest.approx(sum(u.seconds for u in rest.units))


def test_one_file_a_row_is_sorted_by_length_and_cut_as_it_always_was() -> None:
    """Against the plain loop over sorted rows."""
    rows = corpus([(i * 7919 % 3001) / 100 for i in range(3000)])
    expected, seconds, cap = [[]], 0.0, sum(u.duration or 0.0 for u in rows) / 32
    for u in sorted(rows, key=lambda u: (u.duration, u.digest)):
        if seconds + (u.duration or 0.0) > cap:
            expected.append([])
            seconds = 0.0
        expected[-1].append(u.id)
        seconds += u.duration or 0.0
    assert [[r.utterance.id for r in u.rows] for u in make_plan(rows, SPEC).units] == expected


def test_spans_of_a_file_stay_together() -> None:
    """30 recordings of 100 spans each, in the order of a shuffled manifest."""
    lengths = [(i * 37 % 30, 0.5 + (i * 7919 % 1950) / 100) for i in range(3000)]
    plan = make_plan(spans(lengths), SPEC)
    holders: dict[str, int] = {}
    for unit in plan.units:
        assert [r.seconds for r in unit.rows] == sorted(r.seconds for r in unit.rows)
        for name in {r.utterance.audio for r in unit.rows}:
            holders[name] = holders.get(name, 0) + 1
    needed = sum(u.seconds for u in plan.units) / UNIT_SECONDS
    assert sum(holders.values()) <= len(holders) + len(plan.units)  # a cut divides one file at most
    assert needed <= len(plan.units) <= 1.1 * 32


def test_units_are_made_when_they_are_taken() -> None:
    plan = make_plan(corpus([5.0] * 400), SPEC)
    names = [u.name for u in plan.units]
    assert len(plan.units) == len(names) > 3
    assert [u.name for u in plan.units[::-1]] == names[::-1]
    assert (plan.units[-1].name, plan.units[1:3][0].name) == (names[-1], names[1])
    with pytest.raises(IndexError):
        plan.units[len(names)]


@pytest.mark.parametrize("change", ["grown", "shrunk", "shuffled"])
def test_a_manifest_that_changed_gives_units_of_its_new_rows_alone(change: str) -> None:
    old = corpus([1 + i % 20 for i in range(500)])
    covered = {u.digest for u in old}
    new = corpus([1 + i % 20 for i in range(550)])[500:]
    rows = {"grown": old[:250] + new + old[250:], "shrunk": old[::2], "shuffled": sorted(old, key=lambda u: u.digest)}
    plan = make_plan([replace(u, row=i) for i, u in enumerate(rows[change], start=1)], SPEC, covered)
    assert ids(plan) == (sorted(u.id for u in new) if change == "grown" else [])
    assert plan.covered == {"grown": 500, "shrunk": 250, "shuffled": 500}[change]


def test_only_some_rows_are_planned_and_the_rest_later() -> None:
    rows = corpus([1 + i % 20 for i in range(300)])
    wanted = {f"u{i}" for i in range(0, 300, 7)}
    part = make_plan(rows, SPEC, only=wanted | {"nobody"})
    assert ids(part) == sorted(wanted)
    assert (part.rows, part.covered) == (len(wanted), 0)
    done = {r.digest for u in part.units for r in u.rows}
    assert ids(make_plan(rows, SPEC, done)) == sorted({u.id for u in rows} - wanted)
    assert not make_plan(rows, SPEC, done, only=wanted).units
    both = make_plan(rows, SPEC, only=wanted, limit=3)
    assert ids(both) == ["u0", "u14", "u7"]


@pytest.mark.parametrize("limit", [0, 1, 120, 500])
def test_a_limit_takes_the_first_rows_again_and_again(limit: int) -> None:
    rows = corpus([1 + i % 20 for i in range(300)])
    plan = make_plan(rows, SPEC, limit=limit)
    assert ids(plan) == sorted(u.id for u in rows[:limit])
    assert not make_plan(rows, SPEC, {r.digest for u in plan.units for r in u.rows}, limit=limit).units


def test_what_is_chosen_does_not_move_the_limits_of_units() -> None:
    """Those come from the whole manifest: 600 rows of 30 s give units of 560 s, and so do 100 of them."""
    rows = corpus([30.0] * 600)
    assert len(make_plan(rows, SPEC).units[0].rows) == len(make_plan(rows, SPEC, limit=100).units[0].rows) == 18


def test_a_row_that_is_tried_again_is_in_a_unit_of_another_name() -> None:
    rows = corpus([2.0] * 10)
    (unit,) = make_plan(rows, SPEC).units
    again = {unit.rows[3].digest: unit.name}
    (retried,) = make_plan(rows, SPEC, {u.digest for u in rows}, again).units
    assert [r.digest for r in retried.rows] == list(again)
    assert retried.rows[0].previous_unit == unit.name
    assert retried.name != make_plan(rows[3:4], SPEC).units[0].name


def test_units_are_sorted_and_bounded() -> None:
    plan = make_plan(corpus([(i * 7919 % 3000) / 100 for i in range(6000)]), SPEC)
    assert all(u.seconds <= UNIT_SECONDS and len(u.rows) <= UNIT_ROWS for u in plan.units)
    assert all(u.rows[i].seconds <= u.rows[i + 1].seconds for u in plan.units for i in range(len(u.rows) - 1))


def test_bytes_of_targets_bound_a_unit() -> None:
    plan = make_plan(corpus([10.0] * 400), SPEC, unit_bytes=60_000)  # Level: 600 bytes a second
    assert {len(u.rows) for u in plan.units} == {10}
    assert plan.bytes == 400 * 10 * 600


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
