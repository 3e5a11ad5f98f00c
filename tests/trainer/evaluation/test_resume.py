"""An evaluation that is killed goes on with the same command, and ends with the same bytes."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from coat.manifests import InputError
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.predictions import TIMINGS, lines_of
from tests.integration.helpers import coat
from tests.trainer.evaluation.helpers import PLACES, Listener, evaluate_and_die, settings_of, write_questions
from tests.trainer.training.processes import accelerate_launch, run_ranks

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


class Killed:
    """One evaluation, in which every batch is a row; what it ends with when nothing happens to it, by one rank."""

    def __init__(self, ranks: int, student: Path, folder: Path, rows: int, **options: Any) -> None:
        self.ranks, self.folder, self.kills = ranks, folder, 0
        data = write_questions(folder / "data", rows=rows)
        self.settings = settings_of(data, student, batch_size=1, **options).model_dump(mode="json")
        assert run_ranks(1, evaluate_and_die, self.settings, folder / "whole", None) == [0]
        self.expected = contents(folder / "whole")
        self.asks = len([*lines_of(folder / "whole" / TIMINGS)])

    def kill(self, deadly: tuple[int, int, str], go_on_with: int | None = None) -> bool:
        """False: it came to its end before that."""
        self.kills += 1
        out = self.folder / f"killed{self.kills}"
        died = -9 in run_ranks(self.ranks, evaluate_and_die, self.settings, out, deadly)
        assert (out / "results.json").exists() == (not died)
        ranks = go_on_with or self.ranks
        assert run_ranks(ranks, evaluate_and_die, self.settings, out, None) == [0] * ranks
        assert contents(out) == self.expected, deadly
        asked = [(t["id"], t["variant"]) for t in map(json.loads, lines_of(out / TIMINGS))]
        assert len(set(asked)) == len(asked) == self.asks
        return died


@pytest.mark.parametrize("ranks", [1, 2])
def test_kill_9(ranks: int, student_dir: Path, tmp_path: Path) -> None:
    """At rows, and at places in their writing, that are drawn; and at a file that is written at once."""
    rng = random.Random(ranks)
    evaluation = Killed(ranks, student_dir, tmp_path, rows=3, guard=1)
    for where in rng.sample(PLACES, 3):
        assert evaluation.kill((ranks - 1, rng.randint(1, evaluation.asks // ranks), where))
    assert evaluation.kill((0, 5, "file"), go_on_with=3 - ranks)  # on the other number of ranks


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_kill_9_at_every_row(ranks: int, student_dir: Path, tmp_path: Path) -> None:
    """On each rank in turn, at every place in the writing of every row; then before every other file."""
    evaluation = Killed(ranks, student_dir, tmp_path, rows=3, guard=1, orders=2)
    for n in range(1, evaluation.asks // ranks + 1):
        for i, where in enumerate(PLACES):
            assert evaluation.kill(((n + i) % ranks, n, where)), (n, where)
    n = 1
    while evaluation.kill((0, n, "file")):
        n += 1
    assert n > 5


def test_accelerate_launch(student_dir: Path, tmp_path: Path) -> None:
    """Two ranks of `accelerate launch -m coat evaluate`: the files of one process, and its figures told once."""
    data = write_questions(tmp_path / "data", rows=7)
    options = ["--data", data, "--student", student_dir, "--guard", 2, "--cost", 0, "--max-new-tokens", 4]
    options += ["--batch-size", 2]
    coat("evaluate", *options, "--out", tmp_path / "one")
    done = accelerate_launch(tmp_path, "coat", "evaluate", *options, "--out", tmp_path / "two")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert done.stdout.count("Scores") == 1


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
