"""Any checkpoint of a run can be asked and exported: it has the weights that the run had at that step."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from coat.cli.main import app
from coat.manifests import InputError, RunError, ShardIndex
from coat.trainer import export_run, load_run, train
from coat.trainer.generation import run_student
from coat.trainer.generation.run_student import find_student, load_model
from coat.trainer.model.build import build_model
from coat.trainer.model.experts import experts_of
from coat.trainer.model.saved_weights import load_weights
from tests.trainer.helpers import toy_config, toy_sample

AUDIO = (toy_sample(1)["audio"], 16000)
LORA, FULL = {"full": False, "rank": 2}, {"full": True}
FAST = {"lr": 0.05, "heads_lr": 0.05}


@pytest.fixture(scope="module")
def runs(student_dir: Path, shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    kinds: dict[str, dict[str, Any]] = {
        "lora": {"lora": LORA, "optim": FAST}, "full": {"lora": FULL, "optim": FAST},
        "ema": {"lora": LORA, "optim": {**FAST, "ema": 0.5}},
    }  # fmt: skip
    for name, parts in kinds.items():
        train(toy_config(student_dir, shards_dir, folder / name, steps=4, run={"keep": 9, "save_every": 1}, **parts))
    return {name: folder / name for name in kinds}


@pytest.mark.parametrize("kind", ["lora", "full", "ema"])
def test_a_checkpoint_is_the_student_of_its_step(runs: dict[str, Path], shards_dir: Path, kind: str) -> None:
    run = runs[kind]
    said = []
    for step in (1, 3, 4):
        trained = load_run(run, device="cpu", step=step)
        assert trained.step == step
        inputs = trained.inputs([(AUDIO, "High or low?", ())])
        live = build_model(trained.config, experts_of(trained.config, ShardIndex.read(str(shards_dir)))).eval()
        file = run / "checkpoints" / f"step-{step:08d}" / "model.safetensors"
        prefix = "ema." if kind == "ema" else ""
        expected = {prefix + name: parameter for name, parameter in live.trainable().items()}
        load_weights(file, expected, ignored=lambda name: (prefix == "ema.") != name.startswith("ema."))  # noqa: B023
        with torch.no_grad():
            logits = trained.student.model(**inputs).logits
            assert torch.equal(logits, live.student.model(**inputs).logits), step
        said.append(logits)
    assert not torch.equal(said[0], said[1])
    finished = load_run(run, device="cpu")
    with torch.no_grad():
        assert torch.equal(finished.student.model(**inputs).logits, said[2])


def test_a_run_that_is_not_finished_is_asked_at_its_newest(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path / "run", lora=LORA, run={"save_every": 1, "keep": 2})
    stops = iter([False, False, True])
    assert not train(config, stop=lambda: next(stops)).finished
    assert load_run(tmp_path / "run").step == 3
    assert load_run(tmp_path / "run", step=2).step == 2
    with pytest.raises(InputError, match="no checkpoint of step 1; there are those of 2, 3"):
        load_run(tmp_path / "run", step=1)
    with pytest.raises(InputError, match=r"no best checkpoint was kept; train with run.best .* --step of 2, 3"):
        load_run(tmp_path / "run", step="best")
    newest = tmp_path / "run" / "checkpoints" / "step-00000003" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"step-00000003: not whole \(model.safetensors is damaged\); choose .*: 2, 3"):
        find_student(tmp_path / "run")


def test_what_does_not_fit_is_never_loaded_in_part(runs: dict[str, Path], tmp_path: Path) -> None:
    from coat.trainer.generation.run_student import load_from_checkpoint

    trained = load_run(runs["full"])
    checkpoint = runs["lora"] / "checkpoints" / "step-00000001"
    with pytest.raises(RunError, match=r"weights do not fit the model: network\..* more are on one side only"):
        load_from_checkpoint(dict(trained.student.model.named_parameters()), "network.", checkpoint, averaged=False)


def test_a_model_for_analysis_has_the_heads_of_its_step(runs: dict[str, Path]) -> None:
    for run in runs.values():
        finished, first = load_model(run), load_model(run, step=1)
        written = load_file(run / "heads.safetensors")
        assert written
        assert set(written) == set(finished.heads.state_dict())
        assert all(torch.equal(written[name], tensor) for name, tensor in finished.heads.state_dict().items())
        assert any(not torch.equal(written[name], tensor) for name, tensor in first.heads.state_dict().items())
        assert not finished.training


def test_heads_are_of_the_step_of_the_student_though_the_run_goes_on(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run at work writes its next checkpoint between the reading of one and of the other."""
    run = tmp_path / "run"
    shutil.copytree(runs["lora"], run, ignore=shutil.ignore_patterns("done.json", "student", "heads.safetensors"))
    for name in ("step-00000001", "step-00000003", "step-00000004"):  # whole ones have a done.json of their own
        shutil.copytree(runs["lora"] / "checkpoints" / name, run / "checkpoints" / name, dirs_exist_ok=True)
    newest, kept = run / "checkpoints" / "step-00000004", tmp_path / "step-00000004"
    newest.rename(kept)

    def load_and_write(*args: Any) -> Any:
        trained = load_run(*args)
        kept.rename(newest)
        return trained

    monkeypatch.setattr(run_student, "load_run", load_and_write)
    found = load_model(run)
    monkeypatch.undo()
    third = load_model(run, step=3)
    assert newest.exists()
    for name, weight in third.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight), name


@pytest.mark.parametrize("merged", [False, True])
def test_a_checkpoint_is_exported(runs: dict[str, Path], tmp_path: Path, merged: bool) -> None:
    made = export_run(runs["lora"], tmp_path / "out", step=2, merged=merged)
    assert made.step == 2
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Step 2, training" in card
    assert "Step 4" not in card
    if not merged:
        ours = load_file(tmp_path / "out" / "adapter_model.safetensors")
        kept = load_file(runs["lora"] / "checkpoints" / "step-00000002" / "model.safetensors")
        a_name = next(name for name in ours if name.endswith("q_proj.lora_B.weight"))
        inner = a_name.removeprefix("base_model.model.").replace("lora_B.weight", "lora_B.default.weight")
        assert torch.equal(ours[a_name], kept[f"network.{inner}"])


def test_the_commands_take_a_step(runs: dict[str, Path], tmp_path: Path) -> None:
    run = str(runs["lora"])
    ask = ["generate", "--run", run, "--prompt", "What?", "--max-new-tokens", "2", "--json"]
    done = CliRunner().invoke(app, [*ask, "--step", "2"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["step"] == 2
    assert json.loads(CliRunner().invoke(app, ask).stdout)["step"] == 4
    exported = CliRunner().invoke(app, ["export", "--run", run, "--out", str(tmp_path / "x"), "--step", "1", "--json"])
    assert json.loads(exported.stdout)["step"] == 1
    wrong = CliRunner().invoke(app, [*ask, "--step", "last"])
    assert isinstance(wrong.exception, InputError)
    assert "--step last: expected the step of a checkpoint, or best" in str(wrong.exception)
