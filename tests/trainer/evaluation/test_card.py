"""Results in the model card of an export."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from coat.manifests import InputError
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.finishing import rescore
from coat.trainer.evaluation.reports.card import card_results
from coat.trainer.export.model_card import front_matter
from tests.trainer.evaluation.helpers import Listener, settings_of, write_questions


def of_run(tmp_path: Path, run: Path, deaf: bool = False) -> Path:
    """An evaluation whose subject is a run."""
    out = tmp_path / "e"
    evaluate(settings_of(write_questions(tmp_path / "d", 12), "x", guard=4), out, lambda _: Listener(deaf))
    subject = json.loads((out / "subject.json").read_text())
    (out / "subject.json").write_text(json.dumps({**subject, "kind": "run", "source": str(run), "step": 40}))
    rescore(out)
    return out


def test_a_card_takes_results(tmp_path: Path) -> None:
    run = tmp_path / "run"
    found = card_results([str(of_run(tmp_path, run))], str(run))
    assert found
    assert "manifest yours, step 40: prompt template `coat`, greedy." in found.text
    assert "| this model | 100.0 [" in found.text
    assert "| *always: first choice* | 50.0 | 50.0 |" in found.text
    assert "| *chance* | 50.0 | 50.0 |" in found.text
    assert "does not hear" not in found.text
    assert str(tmp_path) not in found.text
    card = ModelCard(front_matter("adapter", "owner/model", "qwen2_audio", found.figures) + "\n\n" + found.text)
    found_there = card.data.to_dict()["model-index"][0]["results"]
    metrics = [metric for result in found_there for metric in result["metrics"]]
    assert [(m["type"], m["name"], m["value"]) for m in metrics] == [
        ("accuracy", "accuracy (official rule)", 1.0),
        ("accuracy", "accuracy (strict rule)", 1.0),
    ]


def test_a_card_says_that_a_model_is_deaf(tmp_path: Path) -> None:
    found = card_results([str(of_run(tmp_path, tmp_path / "run", deaf=True))], str(tmp_path / "run"))
    assert found
    assert "**It does not hear.**" in found.text


def test_another_runs_results_are_refused(tmp_path: Path) -> None:
    made = of_run(tmp_path, tmp_path / "run")
    with pytest.raises(InputError, match="not of the run"):
        card_results([str(made)], str(tmp_path / "other"))
    assert card_results([], str(tmp_path)) is None
