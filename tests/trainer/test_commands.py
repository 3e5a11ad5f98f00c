"""The commands, as the command line registers them; and what importing coat.trainer loads."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from coat.cli.trained import export, generate
from coat.cli.training import train as commands
from coat.trainer.training.reporting.metrics_log import Report

ROOT = Path(__file__).parents[2]


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command("train")(commands.train)
    made.command("generate")(generate.generate)
    made.command("export")(export.export)
    made.command("tiny-student")(commands.tiny_student)
    return made


def test_from_a_tiny_student_to_an_answer(app: typer.Typer, shards_dir: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    student, out = str(tmp_path / "student"), str(tmp_path / "run")
    made = runner.invoke(app, ["tiny-student", "qwen2-audio", student])
    assert (made.exit_code, made.stdout.strip()) == (0, student)
    flags = ["--set", "heads.dim=16", "--set", "lora.rank=2", "--set", "run.log_every=1", "--set", "thinking.count=2"]
    flags += ["--set", 'stages=[{name="answer", steps=2}]']
    trained = runner.invoke(app, ["train", "--student", student, "--shards", str(shards_dir), "--out", out, *flags])
    assert trained.exit_code == 0, trained.output
    assert trained.stdout == ""
    assert f"finished: {out}" in trained.stderr
    again = runner.invoke(app, ["train", "--student", student, "--shards", str(shards_dir), "--out", out, *flags])
    assert "this run is finished" in again.stderr
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    asked = ["generate", "--run", out, "--audio", str(tmp_path / "a.wav"), "--prompt", "?", "--max-new-tokens", "2"]
    answer = runner.invoke(app, [*asked, "--json"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout).keys() == {"audio", "prompt", "answer", "cut", "step", "seconds"}
    both = runner.invoke(app, [*asked, "--prompt", "High or low?", "--json"])
    rows = [json.loads(line) for line in both.stdout.splitlines()]
    assert [row["prompt"] for row in rows] == ["?", "High or low?"]
    assert rows[0]["answer"] == json.loads(answer.stdout)["answer"]
    exported = runner.invoke(app, ["export", "--run", out, "--out", str(tmp_path / "exported"), "--json"])
    made = json.loads(exported.stdout)
    assert (made["kind"], made["positions"], made["base"]) == ("adapter", 2, None)
    assert made["bytes"] == sum(p.stat().st_size for p in (tmp_path / "exported").iterdir())
    refused = runner.invoke(app, [*asked, "--prompt", "High or low?", "--choice", "high"])
    assert "--choice belongs to one --prompt" in str(refused.exception)
    answered = runner.invoke(app, [*asked, "--turns", '[["What?", "a tone"]]'])
    assert answered.exit_code == 0, answered.output
    refused = runner.invoke(app, [*asked, "--turns", "What?"])
    assert "--turns What?: " in str(refused.exception)


def test_importing_the_trainer_loads_nothing_heavy() -> None:
    code = (
        "import sys, coat.trainer, coat.cli.training.train\n"
        "print([m for m in ('ray', 'nemo', 'transformers', 'torch', 'peft', 'coat.extractors') if m in sys.modules])\n"
        "from coat.trainer import TrainConfig, iterate_shards\n"
        "print([m for m in ('ray', 'nemo', 'transformers', 'peft', 'coat.extractors') if m in sys.modules])\n"
        "from coat.trainer import train, load_run\n"
        "print([m for m in ('ray', 'nemo', 'coat.extractors', 'coat.pipeline') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split("\n")[:3] == ["[]", "[]", "[]"]


def test_progress_of_a_resumed_run_counts_its_own_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coat.cli.progress.EVERY_S", 0.0)
    values = {"loss": 1.5, "ce": 0.5, "distill/mel": 1.0, "lr": 1e-3, "samples_per_s": 12.0, "steps_per_s": 3.0}
    with commands.progress_lines() as show:
        show(Report(step=70, steps=100, first=60, stage="answer", values=values))
    line = capsys.readouterr().err
    assert "train: 10/40 steps" in line
    assert "answer (went on at step 60): loss 1.500 ce 0.500 mel 1.000, 12.0 samples/s" in line
