"""A manifest that is asked beside the training gets the answers that `coat evaluate` gets of the same checkpoint."""

import json
from pathlib import Path

import pytest

from coat.manifests import InputError
from coat.trainer import train
from coat.trainer.evaluation.asking.who import make_asker
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.settings import EvaluationSettings
from coat.trainer.run_folder import read_rows
from tests.trainer.evaluation.helpers import write_questions
from tests.trainer.helpers import toy_config


def test_a_manifest_beside_the_training(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", rows=6)
    asked = {"data": str(data), "rows": 4, "every": 4, "max_new_tokens": 3, "guard": 2}
    evaluation = {"every": 2, "benchmarks": [asked]}
    config = toy_config(student_dir, shards_dir, tmp_path / "run", evaluation=evaluation)
    lines: list[str] = []
    train(config, log=lines.append)
    rows = read_rows(tmp_path / "run" / "evaluation.jsonl")
    assert [row["step"] for row in rows] == [4, 6]
    assert any(line.startswith("step 6: ") and "of 4 rows" in line for line in lines)
    plain = tmp_path / "plain"
    train(toy_config(student_dir, shards_dir, plain))
    for name in ("metrics.jsonl",):  # the training is what it is without
        of_both = [[{**row, "seconds": 0} for row in read_rows(run / name)] for run in (tmp_path / "run", plain)]
        assert [row["loss"] for row in of_both[0]] == [row["loss"] for row in of_both[1]]
    for row in rows:
        beside = tmp_path / "run" / "evaluations" / f"step-{row['step']:08d}" / "questions"
        settings = json.loads(EvaluationSettings.read(beside).model_dump_json())
        settings["subject"]["step"] = str(row["step"])
        again = tmp_path / f"again-{row['step']}"
        found = evaluate(EvaluationSettings.from_dict(settings, "test"), again, make_asker)
        assert found
        assert (again / "predictions.jsonl").read_bytes() == (beside / "predictions.jsonl").read_bytes()
        assert row["questions/accuracy"] == found.benchmarks["questions"].scores.strict["accuracy"]
        assert found.subject.step == row["step"]
    wrong = toy_config(
        student_dir, shards_dir, tmp_path / "b", evaluation={"benchmarks": [{**asked, "template": "none"}]}
    )
    with pytest.raises(InputError, match="--template none: manifest has"):
        train(wrong)
