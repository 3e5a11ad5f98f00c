"""Whether a model hears, and whether it chooses by place: on answers whose truth is known."""

from pathlib import Path
from typing import Any

import pytest

from coat.trainer.evaluation.asking.planning import orders_of
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.results import Results
from tests.trainer.evaluation.helpers import Listener, settings_of, write_questions


def evaluated(tmp_path: Path, asker: Listener, rows: int = 8, **options: Any) -> Results:
    data = write_questions(tmp_path / "data", rows=rows)
    found = evaluate(settings_of(data, "listener", **options), tmp_path / "e", lambda _: asker)
    assert found
    return found


def test_one_that_hears(tmp_path: Path) -> None:
    found = evaluated(tmp_path, Listener(), guard=6)
    assert found.hearing
    assert (found.hearing.rows, found.hearing.silence, found.hearing.hears) == (6, 6, True)
    assert found.heading.startswith("manifest yours: accuracy 100.0 % official, 100.0 % strict, of 8 rows; hears: ")
    manifest = found.benchmarks["manifest"]
    assert (manifest.scores.strict["accuracy"], manifest.chance) == (1.0, 0.5)
    assert {k: v.rows for k, v in manifest.groups["task"].items()} == {"even": 4, "odd": 4}


def test_a_deaf_one_is_said_to_be_deaf_first(tmp_path: Path) -> None:
    found = evaluated(tmp_path, Listener(deaf=True), guard=6)
    assert found.hearing
    assert (found.hearing.changed_by_other_audio, found.hearing.changed_by_silence) == (0, 0)
    assert found.heading.startswith("DOES NOT HEAR ITS AUDIO: 0 of 6 answers changed with another row's audio")
    assert found.benchmarks["manifest"].scores.strict["accuracy"] == 0.5


def test_one_sound_for_all_leaves_silence(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", rows=3, audio_filepath="q0.wav")
    found = evaluate(settings_of(data, "listener", guard=3), tmp_path / "e", lambda _: Listener())
    assert found
    assert found.hearing
    assert (found.hearing.other_audio, found.hearing.silence) == (0, 3)


@pytest.mark.parametrize(("asker", "consistency", "bias"), [(Listener(), 1.0, 0.0), (Listener(deaf=True), 0.0, 0.5)])
def test_orders(tmp_path: Path, asker: Listener, consistency: float, bias: float) -> None:
    """Of two choices there are two orders; who takes the first is right in one of them, and never consistent."""
    found = evaluated(tmp_path, asker, orders=3).benchmarks["manifest"].orders
    assert found
    assert (found.orders, found.rows, found.consistency) == (2, 8, consistency)
    assert found.accuracy == (1.0 if consistency else 0.5)
    assert (found.bias, sum(found.by_position)) == (pytest.approx(bias), pytest.approx(1.0))


def test_orders_are_different_and_turn_round() -> None:
    for count, wanted, made in ((4, 4, 3), (4, 24, 23), (4, 99, 23), (2, 5, 1), (1, 5, 0), (0, 5, 0), (9, 20, 19)):
        found = orders_of(count, wanted, seed=1)
        assert len(found) == len(set(found)) == made
        assert tuple(range(count)) not in found
        assert all(sorted(order) == list(range(count)) for order in found)
    assert {order[0] for order in orders_of(4, 4, seed=0)} == {1, 2, 3}
