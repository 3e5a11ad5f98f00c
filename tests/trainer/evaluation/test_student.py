"""A student that is asked by `coat evaluate` answers as it answers one by one; what fails is counted."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.manifests import Manifest, decode
from coat.trainer import load_run, train
from coat.trainer.evaluation.asking.who import make_asker
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.predictions import read_predictions
from coat.trainer.students.registry import load_student
from tests.integration.helpers import coat
from tests.trainer.evaluation.helpers import settings_of, write_questions
from tests.trainer.helpers import toy_config


def test_a_run_is_asked_as_one_by_one(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    train(toy_config(student_dir, shards_dir, tmp_path / "run", lora={"full": False}))
    data = write_questions(tmp_path / "data")
    asked = ["--data", data, "--run", tmp_path / "run", "--guard", 2, "--max-new-tokens", 4, "--batch-size", 4]
    done = coat("evaluate", *asked, "--out", tmp_path / "e", "--json")
    results = json.loads(done.stdout)
    assert results["benchmarks"]["manifest"]["rows"] == 6
    assert (results["subject"]["kind"], results["subject"]["block_positions"]) == ("run", 4)
    assert results["subject"]["generation"]["do_sample"] is False
    trained = load_run(tmp_path / "run")
    found = read_predictions(tmp_path / "e")
    for row in Manifest.read(str(data)):
        prediction = found["manifest", row.id, ""]
        clip = decode(row.audio)
        said = trained.ask((clip.samples_T, clip.rate), "High or low?", choices=row.choices, max_new_tokens=4)
        assert (prediction.answer, prediction.cut) == (str(said), said.is_cut)
        assert prediction.prompt == "High or low?\nChoices: high, low"
        assert prediction.block_tokens == 6
        prefix = trained.student.prefix(clip.samples_T, prediction.prompt)
        assert prediction.prompt_tokens == len(prefix.ids)
    again = coat("evaluate", *asked, "--out", tmp_path / "e")
    assert again.stdout.splitlines()[0] == results["heading"]


def test_the_base_student_has_no_block(folder: Path, tmp_path: Path) -> None:
    """Each kind, as plain transformers answers, greedily."""
    data = write_questions(tmp_path / "data", rows=2)
    settings = settings_of(data, folder, guard=0)
    found = evaluate(settings, tmp_path / "e", make_asker)
    assert found
    assert found.subject.block_positions == 0
    assert found.subject.generation == {
        "do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    }  # fmt: skip
    student = load_student(str(folder))
    for row in Manifest.read(str(data)):
        said = read_predictions(tmp_path / "e")["manifest", row.id, ""]
        prefix = student.prefix(decode(row.audio).samples_T, "High or low?\nChoices: high, low")
        import torch

        inputs = {"input_ids": torch.tensor([prefix.ids]), "attention_mask": torch.ones(1, len(prefix.ids)).long()}
        features = student.stack_features([prefix.features])
        ids = student.model.eval().generate(**inputs, **features, max_new_tokens=4, do_sample=False)
        plain = student.tokenizer.decode(ids[0, len(prefix.ids) :], skip_special_tokens=True).strip()
        assert (said.answer, said.block_tokens, said.prompt_tokens) == (plain, 0, len(prefix.ids))


def test_rows_that_fail_are_counted_and_others_are_asked(student_dir: Path, tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", rows=4)
    soundfile.write(tmp_path / "data" / "q0.wav", np.zeros(16000 * 4), 16000)  # longer than it hears
    (tmp_path / "data" / "q1.wav").write_bytes(b"no sound")
    found = evaluate(settings_of(data, student_dir, guard=0), tmp_path / "e", make_asker)
    assert found
    manifest = found.benchmarks["manifest"]
    assert (manifest.rows, manifest.missing, manifest.failed) == (4, 2, 2)
    predictions = read_predictions(tmp_path / "e")
    assert "hears at most 3 s" in (predictions["manifest", "q0", ""].error or "")
    assert "q1.wav" in (predictions["manifest", "q1", ""].error or "")
    assert predictions["manifest", "q2", ""].answer is not None
    assert "2 missing" in found.heading


@pytest.mark.parametrize("template", ["audio-flamingo", "{question} One of {choices}:"])
def test_templates_are_recorded(template: str, student_dir: Path, tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", rows=1)
    options = ["--student", student_dir, "--template", template, "--guard", 0, "--max-new-tokens", 2]
    coat("evaluate", "--data", data, *options, "--out", tmp_path / "e")
    used = json.loads((tmp_path / "e" / "results.json").read_text())["benchmarks"]["manifest"]["template"]
    (prediction,) = read_predictions(tmp_path / "e").values()
    if template.startswith("{"):
        assert (used["name"], used["text"]) == ("own", template)
        assert prediction.prompt == "High or low? One of (A) high\n(B) low:"
    else:
        assert used["name"] == template
        assert prediction.prompt.endswith("following options:\n(A) high\n(B) low")


def test_a_run_is_asked_as_it_was_trained(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    """`data.choices` of its training decides, unless a template is named."""
    config = toy_config(student_dir, shards_dir, tmp_path / "run", steps=2, data={"choices": "ignore"})
    train(config)
    data = write_questions(tmp_path / "data", rows=1)
    for name, expected in ((None, "High or low?"), ("coat", "High or low?\nChoices: high, low")):
        settings = settings_of(data, tmp_path / "run", "run", guard=0)
        named = settings.benchmarks[0].model_copy(update={"template": name})
        out = tmp_path / str(name)
        evaluate(settings.model_copy(update={"benchmarks": (named,)}), out, make_asker)
        (prediction,) = read_predictions(out).values()
        assert prediction.prompt == expected
