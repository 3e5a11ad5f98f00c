"""Counts and scores of a manifest's rows: what is missing, empty or unparsed is wrong, and in the denominator."""

from pathlib import Path

import pytest

from coat.manifests import InputError, Utterance
from coat.trainer.evaluation.benchmarks.manifest import ManifestQuestions
from coat.trainer.evaluation.data import read_rows
from coat.trainer.evaluation.predictions import Prediction
from coat.trainer.evaluation.scoring import by_group, counts, headline, score_rows

MANIFEST = ManifestQuestions()


def row(identity: str, **changes: object) -> Utterance:
    made = {"id": identity, "audio": "a.wav", "audio_filepath": "a.wav", "prompt": "?", "choices": ("high", "low")}
    return Utterance(**{**made, **changes})  # type: ignore[arg-type]


def test_what_is_no_answer_is_wrong() -> None:
    rows = [
        row("right", response="low", extra={"task": "tone"}),
        row("wrong", response="high", extra={"task": "tone"}),
        row("free", response="Low!", choices=(), extra={"task": "free"}),
        row("both", response="x", choices=("x", "y", "z"), extra={"task": "free"}),
        row("failed", response="low"),
        row("missing", response="low"),
        row("empty", response="low"),
        row("hidden"),  # of a test set whose answers are kept
    ]
    given = {
        "right": "It is low.",
        "wrong": "It is low.",
        "free": "low",
        "both": "x or y",
        "empty": " ",
        "hidden": "low",
    }
    answered = {i: Prediction(benchmark="m", id=i, answer=answer, cut=i == "wrong") for i, answer in given.items()}
    answered["failed"] = Prediction(benchmark="m", id="failed", error="broken")
    scored = score_rows(MANIFEST, rows, answered)
    found = counts(MANIFEST, scored)
    assert (found.rows, found.missing, found.failed, found.empty, found.unparsed) == (8, 2, 1, 1, 1)
    assert (found.unscored, found.cut) == (1, 1)
    assert found.scores.strict == {"accuracy": pytest.approx(2 / 7)}
    assert found.chance == pytest.approx((0.5 * 5 + 0 + 1 / 3) / 7)
    tone, free = (by_group(MANIFEST, scored)["task"][name] for name in ("tone", "free"))
    assert (tone.rows, tone.scores.strict["accuracy"], free.scores.strict["accuracy"]) == (2, 0.5, 0.5)
    line = headline(MANIFEST, "mine", found)
    assert line == (
        "mine yours: accuracy 28.6 % official, 28.6 % strict, of 8 rows "
        "(2 missing, 1 empty, 1 unparsed, 1 unscored, 1 cut)"
    )


def test_rows_with_text_alone_are_transcribed() -> None:
    """Error rates are of their words alone: 1 substituted, 4 deleted of 4 + 4 words."""
    spoken = [row(i, prompt=None, choices=(), text="The cat sat down.") for i in ("said", "lost")]
    rows = [*spoken, row("asked", response="low")]
    given = {"said": "the CAT sat there", "asked": "low"}
    answered = {i: Prediction(benchmark="m", id=i, answer=answer) for i, answer in given.items()}
    found = counts(MANIFEST, score_rows(MANIFEST, rows, answered))
    assert found.scores.strict["wer"] == pytest.approx(5 / 8)
    assert (found.scores.strict["substitutions"], found.scores.strict["deletions"]) == (1 / 8, 4 / 8)
    assert found.scores.strict["accuracy"] == pytest.approx(1 / 3)
    assert "33.3 % strict, wer 62.5 %" in headline(MANIFEST, "mine", found)


def test_a_manifest_that_asks_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"id": "a", "audio_filepath": "a.wav"}\n')
    with pytest.raises(InputError, match="no row has a prompt or a text"):
        read_rows(MANIFEST, str(tmp_path / "m.jsonl"))
    with pytest.raises(InputError, match="no such file"):
        read_rows(MANIFEST, str(tmp_path / "none.jsonl"))
