"""Trackers: what they are given is what metrics.jsonl has, and what goes wrong with one is a line."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, register_tracker_class

from coat.cli import telemetry
from coat.manifests import InputError, RunError
from coat.trainer import train
from coat.trainer.run_folder import read_metrics, read_rows
from tests.trainer.helpers import toy_config

IN_USE: list["Notebook"] = []


class Notebook(GeneralTracker):
    """A tracker as a user would write one."""

    name = "notebook"
    requires_logging_directory = True
    fails_at = 10**9

    def __init__(self, project: str, logging_dir: str, **_: Any) -> None:
        super().__init__()
        self.project, self.logging_dir = project, logging_dir
        self.config: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.finished = False
        IN_USE.append(self)

    @property
    def tracker(self) -> Any:
        return self.rows

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config.update(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        if step is not None and step >= self.fails_at:
            raise ConnectionError("the server\nis away")
        self.rows.append({"step": step, **values})

    def finish(self) -> None:
        self.finished = True


@pytest.fixture(autouse=True)
def notebook() -> Iterator[None]:
    register_tracker_class(Notebook)
    yield
    del LOGGER_TYPE_TO_CLASS["notebook"]
    IN_USE.clear()
    Notebook.fails_at = 10**9


def test_a_tracker_gets_the_config_and_every_row(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    held_out = {"shards": str(shards_dir), "every": 3, "samples": 2, "answers": 0}
    run = {"trackers": ["notebook"], "project": "mine", "log_every": 2}
    train(toy_config(student_dir, shards_dir, tmp_path / "a", evaluation=held_out, run=run))
    (used,) = IN_USE
    assert (used.project, used.logging_dir, used.finished) == ("mine", str(tmp_path / "a"), True)
    assert used.config["optim.lr"] == 1e-3
    assert used.config["stages.1.distill_end"] == 0.1
    evaluated = [row for row in used.rows if "eval/ce" in row]
    logged = [row for row in used.rows if "loss" in row]
    assert logged == [{k: v for k, v in row.items() if k != "stage"} for row in read_metrics(tmp_path / "a")]
    assert [row["step"] for row in evaluated] == [3, 6]
    assert evaluated[1]["eval/ce"] == read_rows(tmp_path / "a" / "evaluation.jsonl")[1]["ce"]


def test_a_tracker_that_fails_is_named_and_the_run_goes_on(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    Notebook.fails_at = 4
    lines: list[str] = []
    result = train(
        toy_config(student_dir, shards_dir, tmp_path / "a", run={"trackers": ["notebook"]}), log=lines.append
    )
    assert result.finished
    assert lines == ["notebook failed (the server is away) and is left out from here on; metrics.jsonl goes on"]
    assert [row["step"] for row in IN_USE[0].rows] == [1, 2, 3]
    assert len(read_metrics(tmp_path / "a")) == 6


def test_one_that_will_not_start_stops_the_run(
    student_dir: Path, shards_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Notebook) -> None:
        raise PermissionError("no key")

    monkeypatch.setattr(Notebook, "start", refuse)
    with pytest.raises(RunError, match=r"notebook did not start \(no key\); log in there, or leave it out"):
        train(toy_config(student_dir, shards_dir, tmp_path / "a", run={"trackers": ["notebook"]}))


def test_what_is_unknown_or_not_installed_is_said_before_any_work(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"run.trackers: 'excel' is not one of .*mlflow.*trackio, wandb"):
        train(toy_config(student_dir, shards_dir, tmp_path / "a", run={"trackers": ["excel"]}))
    missing = [name for name in ("mlflow", "trackio", "wandb", "swanlab") if importlib.util.find_spec(name) is None]
    for name in missing:
        with pytest.raises(InputError, match=rf"{name} is not installed; install it \(`pip install {name}`\) or leave"):
            train(toy_config(student_dir, shards_dir, tmp_path / "a", run={"trackers": [name]}))
    assert missing
    assert not (tmp_path / "a").exists()


def test_passwords_in_addresses_are_not_sent(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    from coat.trainer.training.reporting.trackers import flatten

    assert flatten({"data": {"shards": "s3://me:secret@bucket/a@b", "n": [1, None]}}) == {
        "data.shards": "s3://bucket/a@b", "data.n.0": 1, "data.n.1": None,
    }  # fmt: skip


def test_wandb_offline_is_one_run_over_a_resume(
    student_dir: Path, shards_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = toy_config(student_dir, shards_dir, tmp_path / "a", steps=2, run={"trackers": ["wandb"]})
    train(config)
    (tmp_path / "a" / "done.json").unlink()
    train(config)
    written = sorted((tmp_path / "a" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({path.name for path in written}) == 1  # its id
    data = written[0].read_bytes()
    assert all(name in data for name in (b"distill/mel", b"state_grad_norm/mel", b"optim.heads_lr"))


def test_asking_for_wandb_lifts_what_keeps_it_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(telemetry, "OURS", set())
    monkeypatch.delenv("WANDB_MODE", raising=False)
    telemetry.silence()
    assert os.environ["WANDB_MODE"] == "disabled"
    telemetry.allow("WANDB_MODE")
    assert "WANDB_MODE" not in os.environ
    monkeypatch.setenv("WANDB_MODE", "offline")
    telemetry.silence()
    telemetry.allow("WANDB_MODE")
    assert os.environ["WANDB_MODE"] == "offline"  # the user's own word
