"""Plans of experts that share a decode: cut alike, whatever each has already."""

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from coat.pipeline.plan.planning import Covered, ExtractionPlan, make_plan, make_plans
from tests.pipeline.plan.test_plan import SPEC, corpus

Cuts = dict[int, list[str]]


def by_cut(plan: ExtractionPlan) -> Cuts:
    """Digests of the rows of each unit, by the number of its cut."""
    return {int(cut): [r.digest for r in unit.rows] for cut, unit in zip(plan.units.cuts, plan.units, strict=True)}


def plans(rows: list, held: list[set[str]]) -> list[Cuts]:
    return [by_cut(plan) for plan in make_plans(rows, [Covered(SPEC, have) for have in held])]


@given(st.lists(st.floats(0.1, 90.0), min_size=1, max_size=200), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_experts_are_cut_alike_and_what_is_committed_moves_no_other_cut(
    lengths: list[float], experts: int, random: Random
) -> None:
    rows = corpus(lengths)
    digests = {u.digest for u in rows}
    held = [{d for d in sorted(digests) if random.random() < share} for share in (0.5, 0.0, 0.9)[:experts]]
    found = plans(rows, held)
    for units, have in zip(found, held, strict=True):
        assert sorted(d for unit in units.values() for d in unit) == sorted(digests - have)
        for other, had in zip(found, held, strict=True):
            for cut, unit in units.items():  # rows that both lack are in the same cut, in the same order
                assert [d for d in unit if d not in had] == [d for d in other.get(cut, ()) if d not in have]
    finished = {cut for units in found for cut in units if random.random() < 0.5}
    more = [h | {d for cut in finished for d in units.get(cut, ())} for h, units in zip(held, found, strict=True)]
    for units, left in zip(found, plans(rows, more), strict=True):
        assert list(left.values()) == [unit for cut, unit in units.items() if cut not in finished]


def test_a_cut_is_as_small_as_the_largest_targets_need() -> None:
    rows, large = corpus([10.0] * 400), replace(SPEC, dim=10 * SPEC.dim)
    alone = make_plan(rows, large, unit_bytes=600_000)
    small, same = make_plans(rows, [Covered(SPEC), Covered(large)], unit_bytes=600_000)
    assert [u.name for u in small.units] == [u.name for u in same.units] == [u.name for u in alone.units]
    assert len(small.units) > len(make_plan(rows, SPEC, unit_bytes=600_000).units)
