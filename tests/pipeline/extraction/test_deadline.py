"""The deadline of a hung unit follows from units that went well, and has bounds."""

from coat.manifests.corpus.utterance import Utterance
from coat.pipeline.extraction.deadline import FIRST_MOST_S, LEAST_S, MOST_S, Deadline
from coat.pipeline.plan.units import PlannedRow, Unit
from coat.pipeline.worker.report import UnitReport


def unit(seconds: float) -> Unit:
    row = PlannedRow(Utterance(id="a", audio="a.wav", audio_filepath="a.wav"), "0" * 16, seconds)
    return Unit((row,))


def report(audio: float, took: float) -> UnitReport:
    return UnitReport("u", ok=1, audio_seconds=audio, unit_seconds=took)


def test_before_any_unit_went_well_it_is_an_hour_at_most() -> None:
    assert Deadline().of(unit(1800.0)) == FIRST_MOST_S <= 3600.0
    assert 1200.0 <= Deadline().of(unit(1.0)) < 1300.0


def test_a_unit_of_failed_rows_does_not_move_it() -> None:
    deadline = Deadline()
    for _ in range(20):
        deadline.learn(unit(1800.0), report(1800.0, 60.0))
    before = deadline.of(unit(1800.0))
    deadline.learn(unit(1800.0), report(0.4, 180.0))  # a second of it was good: 450 s a second
    deadline.learn(unit(1800.0), report(0.0, 5000.0))
    assert deadline.of(unit(1800.0)) == before == 10 * 60.0


def test_one_slow_unit_does_not_set_the_pace() -> None:
    deadline = Deadline()
    for _ in range(30):
        deadline.learn(unit(600.0), report(600.0, 120.0))
    deadline.learn(unit(600.0), report(600.0, 7000.0))
    assert deadline.of(unit(600.0)) == 1200.0
    assert deadline.of(unit(1.0)) == LEAST_S


def test_it_has_a_ceiling_unless_units_really_take_so_long() -> None:
    deadline = Deadline()
    deadline.learn(unit(600.0), report(600.0, 3000.0))
    assert deadline.of(unit(18000.0)) == MOST_S
    deadline.learn(unit(18000.0), report(18000.0, 90_000.0))
    assert deadline.of(unit(18000.0)) == 180_000.0
