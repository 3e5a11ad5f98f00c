"""Held-out evaluation beside the training: its figures are true, and the training is as it would be without."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coat.manifests import InputError, ShardIndex
from coat.trainer import iterate_shards, load_run, train
from coat.trainer.data.usable import usable_samples, within_budget
from coat.trainer.generation.generate import Trained
from coat.trainer.run_folder import read_rows
from coat.trainer.tiny_students.make import make_tiny_student
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.training.test_loop import RARELY, new_run, rows_of


@pytest.fixture(scope="module")
def held_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven: s100 has no choices, s101 no question, s102 is too long for the tiny student, s103 has no pitch."""
    samples = [toy_sample(i, 0.5 + 0.1 * (i - 100)) for i in range(100, 107)]
    samples[0]["meta"] = {"text": "a tone"}
    samples[1]["meta"] = {}
    samples[2] = toy_sample(102, 3.5)
    del samples[3]["targets"]["pitch"]
    for sample in samples[4:]:
        sample["meta"]["extra"] = {"task": "height"}
    return write_shards(tmp_path_factory.mktemp("held"), samples)


def evaluation(shards: Path, **changes: Any) -> dict[str, Any]:
    return {"shards": str(shards), "every": 2, "answers": 6, "max_new_tokens": 3, **changes}


@pytest.mark.parametrize("name", ["qwen2-audio", "qwen2.5-omni", "audio-flamingo-3"])
def test_training_is_bit_for_bit_what_it_is_without(
    name: str, shards_dir: Path, held_dir: Path, tmp_path: Path
) -> None:
    """With all that could leak: dropout (random state), checkpointing (train mode) and generation (caches)."""
    student = make_tiny_student(tmp_path / "student", name=name)
    weights = []
    for out, table in (("without", {}), ("with", evaluation(held_dir))):
        config = toy_config(
            student, shards_dir, tmp_path / out, steps=4, lora={"full": False, "dropout": 0.3}, evaluation=table,
            run={**RARELY, "gradient_checkpointing": True},
        )  # fmt: skip
        training = new_run(config)
        training.folder.path.mkdir()
        training.run()
        weights.append(training.model.trainable())
    assert rows_of(tmp_path / "without") == rows_of(tmp_path / "with")
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert len(read_rows(tmp_path / "with" / "evaluation.jsonl")) == 2


def test_figures_are_those_of_the_exported_run_asked_one_by_one(
    student_dir: Path, shards_dir: Path, held_dir: Path, tmp_path: Path
) -> None:
    config = toy_config(
        student_dir, shards_dir, tmp_path / "a", evaluation=evaluation(held_dir), optim={"ema": 0.5, "lr": 1e-2},
        run={"gradient_checkpointing": True},
    )  # fmt: skip
    lines: list[str] = []
    train(config, log=lines.append)
    rows = read_rows(tmp_path / "a" / "evaluation.jsonl")
    last = rows[-1]
    assert [row["step"] for row in rows] == [2, 4, 6]

    # Losses: a sample at a time, on the averaged weights of the last checkpoint.
    training = new_run(config)
    training.resume()
    training.model.eval()
    assert training.trainer.ema is not None
    assert training.held_out is not None
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    with training.trainer.ema.in_place(), torch.no_grad():
        for item in usable_samples(training.held_out.collator, training.config):
            batch = training.held_out.collator.collate([item.encoded])
            for name, loss in training.model(batch).items():
                sums[name] = sums.get(name, 0.0) + float(loss)
                counts[name] = counts.get(name, 0) + batch.counts()[name]
    for name, total in sums.items():
        assert last[name if name == "ce" else f"distill/{name}"] == pytest.approx(total / counts[name], rel=1e-4), name
    assert last["samples"] == 6  # without the one that is too long

    # Answers: the exported run, asked one by one.
    trained = load_run(tmp_path / "a")
    samples = {s.id: s for s in iterate_shards(str(held_dir))}
    answers = [row for row in read_rows(tmp_path / "a" / "samples.jsonl") if row["step"] == 6]
    assert [row["id"] for row in answers] == ["s100", "s103", "s104", "s105"]  # of the first six
    assert (answers[0]["prompt"], answers[0]["truth"]) == ("Transcribe the speech.", "a tone")
    right = []
    for row in answers:
        sample = samples[row["id"]]
        said = trained.ask(
            (sample.samples_S, sample.sample_rate), row["prompt"], choices=row["choices"], max_new_tokens=3
        )
        assert row["answer"] == said
        if row["choices"]:
            other = {"high": "low", "low": "high"}[row["truth"]]
            right.append(row["truth"] in said.lower().split() and other not in said.lower().split())
    assert last["answers"] == 3
    assert last["accuracy"] == pytest.approx(np.mean(right))
    assert last["accuracy/height"] == pytest.approx(np.mean(right[1:]))
    assert last["chance"] == pytest.approx(0.5)
    shown = [line for line in lines if line.startswith("step 6: held out: ce ")]
    assert len(shown) == 1
    assert "right (by chance 50%); 'Transcribe the speech.': " in shown[0]
    board = b"".join(p.read_bytes() for p in (tmp_path / "a" / "tensorboard").iterdir())
    assert b"eval/accuracy" in board
    assert b"prompt | answer | truth" in board


def test_an_evaluation_that_a_kill_left_out_is_made_up_for(
    student_dir: Path, shards_dir: Path, held_dir: Path, tmp_path: Path
) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path / "a", steps=2, evaluation=evaluation(held_dir))
    train(config)
    file = tmp_path / "a" / "evaluation.jsonl"
    before = file.read_text()
    file.unlink()
    (tmp_path / "a" / "done.json").unlink()  # as if killed behind the last checkpoint
    train(config)
    assert file.read_text() == before
    (tmp_path / "a" / "done.json").unlink()
    train(config)
    assert file.read_text() == before  # and not a second time


def test_held_out_shards_must_have_what_is_trained(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    held = write_shards(tmp_path / "held", [toy_sample(0)])
    index = json.loads((held / "index.json").read_text())
    index["experts"]["mel"]["spec"]["layer"] = "7"
    (held / "index.json").write_text(json.dumps(index))
    config = toy_config(student_dir, shards_dir, tmp_path / "a", evaluation=evaluation(held))
    with pytest.raises(InputError, match=r"targets of mel are .*, those of the training .*; build both sets"):
        new_run(config)
    del index["experts"]["mel"]
    (held / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="no targets of mel, which is trained"):
        new_run(config)
    assert "mel" in ShardIndex.read(str(shards_dir)).experts


def test_batches_and_answers_keep_the_budget_of_the_training(
    student_dir: Path, shards_dir: Path, held_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the figures are those of larger batches."""
    shapes: list[tuple[int, int]] = []
    generate = Trained.generate

    def seen(self: Trained, inputs: Any, count: int, **options: Any) -> torch.Tensor:
        shapes.append((len(inputs["input_ids"]), inputs["input_ids"].shape[1] + count))
        return generate(self, inputs, count, **options)

    monkeypatch.setattr(Trained, "generate", seen)
    train(toy_config(student_dir, shards_dir, tmp_path / "run", steps=2))
    found = []
    for budget in (None, 300):
        data = {"batch_size": 8, "batch_tokens": budget}
        config = toy_config(
            student_dir, shards_dir, tmp_path / "run", steps=2, data=data, evaluation=evaluation(held_dir)
        )
        training = new_run(config)
        training.resume()
        assert training.held_out is not None
        shapes.clear()
        found.append(training.held_out.evaluate(lambda batch, t=training: t.trainer.forward(batch, t.model)))
    assert len(shapes) > 1
    assert all(count == 1 or count * length <= 300 for count, length in shapes)
    assert [row["answer"] for row in found[0].answers] == [row["answer"] for row in found[1].answers]
    assert found[0].values == pytest.approx(found[1].values, rel=1e-4)


@pytest.mark.parametrize(
    ("budget", "groups"), [(None, [[3, 1, 4], [1, 5]]), (8, [[3, 1], [4, 1], [5]]), (1, [[3], [1], [4], [1], [5]])]
)
def test_groups_within_a_budget(budget: int | None, groups: list[list[int]]) -> None:
    assert list(within_budget(iter([3, 1, 4, 1, 5]), 3, budget, lambda n: n)) == groups
