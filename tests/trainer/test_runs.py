"""`coat runs`: the runs of a folder, compared."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coat.cli.main import app
from coat.manifests import InputError
from coat.trainer import train
from coat.trainer.records.runs import differing, is_at_work, note_process, runs_of
from coat.trainer.run_folder import read_metrics
from tests.trainer.helpers import toy_config


@pytest.fixture(scope="module")
def folder(student_dir: Path, shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, one that was stopped, one that ended early, one whose config is not readable, and another."""
    root = tmp_path_factory.mktemp("runs")
    held_out = {"shards": str(shards_dir), "every": 1, "samples": 4, "answers": 0}
    train(toy_config(student_dir, shards_dir, root / "finished", steps=4))
    stops = iter([False, True])
    train(toy_config(student_dir, shards_dir, root / "sweep" / "stopped", steps=4, optim={"lr": 2e-3}),
          stop=lambda: next(stops))  # fmt: skip
    early = {"best": "distill/mel", "patience": 1, "best_is": "highest"}  # it only falls
    train(toy_config(student_dir, shards_dir, root / "sweep" / "early", steps=9, run=early, evaluation=held_out,
                     thinking={"count": 2}))  # fmt: skip
    shutil.copytree(root / "finished", root / "broken")
    (root / "broken" / "config.toml").write_text("[student]\nno = 1\n")
    (root / "other").mkdir()
    (root / "other" / "config.toml").write_text("a = 1\n")
    return root


def test_state_steps_and_figures(folder: Path) -> None:
    found = {run.name: run for run in runs_of(folder)}
    assert {name: run.state for name, run in found.items()} == {
        "broken": "unreadable", "finished": "finished", "sweep/early": "early", "sweep/stopped": "stopped",
    }  # fmt: skip
    assert (found["finished"].step, found["finished"].steps) == (4, 4)
    assert (found["sweep/stopped"].step, found["sweep/stopped"].steps) == (2, 4)
    assert 2 <= found["sweep/early"].step < 9
    assert found["finished"].figures == read_metrics(folder / "finished")[-1]
    early = found["sweep/early"]
    assert early.best is not None
    assert early.held_out["step"] == early.step == (early.best.step or 0) + 1
    assert "unknown key student.no" in (found["broken"].problem or "")
    (alone,) = runs_of(folder / "finished")
    assert alone.name == "finished"
    with pytest.raises(InputError, match="no runs in it"):
        runs_of(folder / "other")


def test_what_differs(folder: Path) -> None:
    runs = [run for run in runs_of(folder) if run.name in ("finished", "sweep/stopped")]
    assert differing(runs) == {"optim.lr": [1e-3, 2e-3]}


def test_the_command(folder: Path) -> None:
    done = CliRunner().invoke(app, ["runs", str(folder)])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert next(line for line in lines if line[:1] == ["finished"])[1:5] == ["finished", "4", "of", "4"]
    assert ["optim.lr", "0.001", "0.001", "0.002"] in lines
    document: Any = json.loads(CliRunner().invoke(app, ["runs", str(folder), "--json"]).stdout)
    assert [run["run"] for run in document["runs"]] == ["broken", "finished", "sweep/early", "sweep/stopped"]
    assert document["differences"]["thinking.count"] == [4, 2, 4]
    assert document["runs"][2]["best"]["figure"] == "distill/mel"


def test_a_run_is_at_work_while_its_process_is(tmp_path: Path) -> None:
    assert not is_at_work(tmp_path)
    note_process(tmp_path)
    assert is_at_work(tmp_path)
    file = tmp_path / "process.json"
    noted = json.loads(file.read_bytes())
    file.write_text(json.dumps({**noted, "started": noted["started"] - 60}))  # another, with the same number
    assert not is_at_work(tmp_path)
    file.write_text(json.dumps({**noted, "host": "another"}))  # which cannot be asked
    assert is_at_work(tmp_path)
    os.utime(file, (0, 0))
    assert not is_at_work(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")  # it logs
    assert is_at_work(tmp_path)
