"""An evaluation that is killed goes on with the same command, and ends with the same bytes."""

import json
from pathlib import Path

import pytest

from coat.manifests import InputError
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.predictions import TIMINGS, lines_of
from tests.trainer.evaluation.helpers import Listener, evaluate_and_die, settings_of, write_questions
from tests.trainer.training.processes import run_ranks

EQUAL = (
    "config.toml",
    "rows.jsonl",
    "subject.json",
    "predictions.jsonl",
    "variants.jsonl",
    "scores.jsonl",
    "results.json",
)


def contents(out: Path) -> dict[str, bytes]:
    """All but the times; and nothing else is left there."""
    assert {p.name for p in out.iterdir()} == {*EQUAL, TIMINGS}
    return {name: (out / name).read_bytes() for name in EQUAL}


@pytest.mark.parametrize("ranks", [1, 2])
def test_kill_9(ranks: int, student_dir: Path, tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", rows=7)
    settings = settings_of(data, student_dir, orders=2).model_dump(mode="json")
    assert run_ranks(1, evaluate_and_die, settings, tmp_path / "whole", None) == [0]
    expected = contents(tmp_path / "whole")
    for n, deadly in enumerate([(0, 1, "before"), (ranks - 1, 2, "half"), (ranks - 1, 3, "first")]):
        out = tmp_path / f"killed{n}"
        assert -9 in run_ranks(ranks, evaluate_and_die, settings, out, deadly)
        assert not (out / "results.json").exists()
        assert run_ranks(ranks, evaluate_and_die, settings, out, None) == [0] * ranks
        assert contents(out) == expected
    # Killed on all of these ranks, and gone on with alone.
    out = tmp_path / "fewer"
    assert -9 in run_ranks(ranks, evaluate_and_die, settings, out, (ranks - 1, 2, "before"))
    assert run_ranks(1, evaluate_and_die, settings, out, None) == [0]
    assert contents(out) == expected
    asked = {(t["id"], t["variant"]) for t in map(json.loads, lines_of(out / TIMINGS))}
    assert len(asked) == 7 + 4 + 7


def test_what_is_answered_is_not_asked_again(tmp_path: Path) -> None:
    data, out = write_questions(tmp_path / "data", rows=5), tmp_path / "e"
    settings = settings_of(data, "listener")
    first = Listener()
    evaluate(settings, out, lambda _: first)
    expected = contents(out)
    again = Listener()
    evaluate(settings, out, lambda _: again)
    assert (again.asked, contents(out)) == ([], expected)
    predictions = (out / "predictions.jsonl").read_bytes()
    for size in range(0, len(predictions), 97):  # cut at any byte
        (out / "predictions.jsonl").write_bytes(predictions[:size])
        more = Listener()
        evaluate(settings, out, lambda _, more=more: more)
        assert contents(out) == expected
        assert more.asked
        assert all(batch in first.asked for batch in more.asked)  # in the same company


def test_another_evaluation_is_refused(tmp_path: Path) -> None:
    data, out = write_questions(tmp_path / "data", rows=3), tmp_path / "e"
    evaluate(settings_of(data, "listener"), out, lambda _: Listener())
    with pytest.raises(InputError, match=r"holds another evaluation .max_new_tokens was 4, now 5"):
        evaluate(settings_of(data, "listener", max_new_tokens=5), out, lambda _: Listener())
    evaluate(settings_of(data, "listener", batch_size=3), out, lambda _: Listener())  # how fast, not what
    write_questions(tmp_path / "data", rows=4)
    with pytest.raises(InputError, match=r"digest was"):
        evaluate(settings_of(data, "listener"), out, lambda _: Listener())
    with pytest.raises(InputError, match=r"not empty, and not an evaluation"):
        evaluate(settings_of(data, "listener"), tmp_path / "data", lambda _: Listener())


def test_answers_of_two_are_not_mixed(tmp_path: Path) -> None:
    data, out = write_questions(tmp_path / "data", rows=3), tmp_path / "e"
    evaluate(settings_of(data, "listener"), out, lambda _: Listener())
    (out / "predictions.jsonl").unlink()
    other = Listener()
    other.subject = other.subject.model_copy(update={"digest": "0f"})
    with pytest.raises(InputError, match=r"its answers are of another student .digest was ''"):
        evaluate(settings_of(data, "listener"), out, lambda _: other)
