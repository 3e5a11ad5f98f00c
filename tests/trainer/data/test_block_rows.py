"""`thinking.rate_hz`: as many tokens as the run's longest audio needs, and texts that rebuild no vocabulary."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from coat.trainer import load_run, train
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.sample_record import RunData
from coat.trainer.planning.batch_view import nth_batch
from coat.trainer.run_folder import RunFolder
from coat.trainer.students.base import Student
from coat.trainer.training.train import open_run
from tests.trainer.data.test_data import loader
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.training.test_changed_data import build, stop_at
from tests.trainer.training.test_loop import new_run


def config_of(student: Path, shards: Path, out: Path, **parts: Any) -> TrainConfig:
    return toy_config(student, shards, out, steps=4, thinking={"count": 4, "rate_hz": 10.0}, **parts)


def positions(run: Path) -> int:
    return len(load_run(run).block.ids_K)


@pytest.mark.parametrize(("limit", "expected"), [(None, 13), (0.95, 10), (2.9, 13)])
def test_there_are_as_many_tokens_as_the_longest_audio_needs(
    student_dir: Path, tmp_path: Path, limit: float | None, expected: int
) -> None:
    """The student hears 3 s, which would be 30."""
    shards = build(tmp_path / "shards", [toy_sample(i, s) for i, s in enumerate([0.5, 1.25, 0.7, 0.9])])
    config = config_of(student_dir, shards, tmp_path / "run", data={"max_seconds": limit})
    assert len(nth_batch(config, 1).block.ids_K) == expected
    open_run(RunFolder(tmp_path / "run"), config, DataSets.of_run(config), restart=False, change=False)
    assert len(new_run(config).model.block.ids_K) == expected


def test_a_run_resumes_and_is_loaded_with_its_tokens(student_dir: Path, tmp_path: Path) -> None:
    shards = build(tmp_path / "shards", [toy_sample(i, 0.5 + 0.1 * i) for i in range(4)])
    config = config_of(student_dir, shards, tmp_path / "run")
    train(config, stop=stop_at(2))
    assert train(config).finished
    trained = load_run(tmp_path / "run")
    assert len(trained.block.ids_K) == 8
    assert trained.ask((toy_sample(0, 2.5)["audio"], 16000), "?", max_new_tokens=2) is not None  # longer than any


def test_a_run_of_before_keeps_its_tokens(student_dir: Path, tmp_path: Path) -> None:
    """It has no record of its data, and 30 of them."""
    shards = build(tmp_path / "shards", [toy_sample(i, 0.8) for i in range(4)])
    config = config_of(student_dir, shards, tmp_path / "run")
    training = new_run(config)
    training.folder.open(config, training.data.index)
    assert RunData(tmp_path / "run").read() is None
    training.run(stop_at(2))
    assert len(training.model.block.ids_K) == 30
    assert train(config).finished
    assert positions(tmp_path / "run") == 30


def test_longer_audio_on_resume_is_said(student_dir: Path, tmp_path: Path) -> None:
    samples = [toy_sample(i, 0.8) for i in range(4)]
    shards = build(tmp_path / "shards", samples)
    config = config_of(student_dir, shards, tmp_path / "run")
    train(config, stop=stop_at(2))
    build(shards, [*samples, toy_sample(4, 2.0)])
    lines: list[str] = []
    train(config, change=True, log=lines.append, stop=stop_at(1))
    said = "the block was made for 0.8 s; audio of up to 2 s gets no more positions than that"
    assert any(said in line for line in lines)


def test_a_higher_limit_on_resume_is_said(student_dir: Path, tmp_path: Path) -> None:
    shards = build(tmp_path / "shards", [toy_sample(i, 0.5 + 0.2 * i) for i in range(4)])
    train(config_of(student_dir, shards, tmp_path / "run", data={"max_seconds": 0.8}), stop=stop_at(2))
    lines: list[str] = []
    train(config_of(student_dir, shards, tmp_path / "run"), change=True, stop=stop_at(1), log=lines.append)
    assert any("the block was made for 0.8 s; audio of up to 1.1 s" in line for line in lines)


def test_without_samples_parquet_they_are_as_many_as_the_student_hears(student_dir: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [toy_sample(i, 0.8) for i in range(4)])
    assert len(nth_batch(config_of(student_dir, shards, tmp_path / "run"), 1).block.ids_K) == 30


def test_the_vocabulary_is_not_asked_for_each_text(
    student: Student, shards_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes 37 ms of a real tokenizer, and each sample has several texts."""
    made = loader(student, shards_dir)
    asked: list[int] = []
    kind = type(student.tokenizer)
    whole = kind.get_added_vocab
    monkeypatch.setattr(kind, "get_added_vocab", lambda tokenizer: asked.append(1) or whole(tokenizer))
    list(islice(made, 8))
    assert len(asked) <= 1
