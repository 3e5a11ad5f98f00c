"""What is logged of gradients is true, and a run that cannot get anywhere stops with its state kept."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from coat.manifests import InputError, RunError, ShardIndex
from coat.trainer import TrainConfig, train
from coat.trainer.model.batch import Batch
from coat.trainer.model.build import build_model
from coat.trainer.model.experts import same_experts
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.run_folder import RunFolder, read_metrics
from coat.trainer.students.registry import load_student
from coat.trainer.training.run import TrainingRun
from coat.trainer.training.step.measurements import peak_memory
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.training.test_loop import ROOT, first_batch, first_items, new_run


def stepped(config: TrainConfig, size: int) -> tuple[TrainingRun, list[Batch], dict[str, torch.Tensor]]:
    """One step over the same eight samples in passes of `size`, and its gradients as they are before clipping."""
    training = new_run(config)
    gradients: dict[str, torch.Tensor] = {}

    def keep(parameters: Any, _clip: float) -> torch.Tensor:
        gradients.update({n: p.grad.clone() for n, p in training.model.trainable().items() if p.grad is not None})
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    training.accelerator.clip_grad_norm_ = keep  # type: ignore[method-assign]
    items = first_items(training, 8)
    batches = [training.loader.collator.collate(items[i : i + size]) for i in range(0, 8, size)]
    training.trainer.step(batches)
    return training, batches, gradients


def test_gradient_norms_by_group_and_by_loss(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(
        student_dir, shards_dir, tmp_path, lora={"full": False, "rank": 2},
        losses={"weights": {"mel": 3.0}, "scale": "none"},
    )  # fmt: skip
    training, batches, gradients = stepped(config, 8)
    logged = training.trainer.meter.means()
    marks = {
        "grad_norm/lora": "lora_",
        "grad_norm/rows": "trainable_tokens",
        "grad_norm/heads/mel": "heads.groups.mel.",
    }
    for name, mark in marks.items():
        squares = sum(g.double().square().sum().item() for n, g in gradients.items() if mark in n)
        assert logged[name] == pytest.approx(math.sqrt(squares), rel=1e-5), name
    parts = [value for name, value in logged.items() if name.startswith("grad_norm/")]
    assert logged["grad_norm"] == pytest.approx(math.hypot(*parts), rel=1e-5)

    # How hard each loss pulls: autograd, asked for the states themselves, with weight and count by hand.
    fresh = new_run(config)
    batch, seen = batches[0], {}
    fresh.model.loss_gradient_norms.watch = lambda name, states: seen.setdefault(name, states)  # type: ignore[method-assign]
    losses = fresh.model(batch)
    scales = {"ce": 0.1, "mel": 3.0, "pitch": 1.0, "events": 1.0, "prosody": 1.0}
    for name, scale in scales.items():
        (pull,) = torch.autograd.grad(losses[name], seen[name], retain_graph=True)
        expected = scale * pull.norm().item() / batch.counts()[name]
        assert logged[f"state_grad_norm/{name}"] == pytest.approx(expected, rel=1e-4), name
    assert logged["state_grad_norm/mel"] > 0

    cut = stepped(config, 2)[0].trainer.meter.means()
    for name in ("grad_norm", "grad_norm/lora", "grad_norm/heads/mel", *(f"state_grad_norm/{n}" for n in scales)):
        assert cut[name] == pytest.approx(logged[name], rel=1e-3), name


def test_peak_memory_is_the_process_own() -> None:
    """Not its parent's, from which a launcher's ranks would all begin."""
    np.ones(2**27)  # a gigabyte, touched and given back
    code = "import torch; from coat.trainer.training.step import measurements as m"
    code += "; print(m.peak_memory(torch.device('cpu')))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 0.05 < float(child.stdout) < 1 < peak_memory(torch.device("cpu"))


def test_rates_padding_and_memory_are_logged(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path / "a", steps=2, optim={"heads_lr": 3e-3})
    train(config)
    row = read_metrics(tmp_path / "a")[0]
    batch = first_batch(new_run(config))  # of the first step
    lengths = batch.inputs["attention_mask"].sum(1)
    assert row["padding"] == pytest.approx(1 - lengths.float().mean().item() / lengths.max().item())
    assert row["tokens_per_s"] / row["samples_per_s"] == pytest.approx(lengths.float().mean().item())
    assert row["samples_per_s"] / row["steps_per_s"] == pytest.approx(len(batch))
    assert row["lr/heads"] == pytest.approx(3 * row["lr"])
    assert 0.05 < row["peak_memory_gib"] < 64


def poisoned(config: TrainConfig, at: int, name: str) -> TrainingRun:
    """A run whose weight `name` is NaN from behind step `at` on."""
    training = new_run(config)
    training.folder.open(config, ShardIndex.read(str(config.data.shards)))

    def poison(report: Any) -> None:
        if report.step == at:
            with torch.no_grad():
                training.model.trainable()[name].fill_(math.nan)

    training.on_report = poison
    return training


def test_a_loss_that_is_not_finite_names_itself_its_samples_and_what_is_kept(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path / "a", run={"save_every": 4})
    training = poisoned(config, 5, "heads.groups.mel.trunk.norm.weight")
    with pytest.raises(RunError) as caught:
        training.run()
    said = str(caught.value)
    assert said.startswith("step 6: the loss is not finite: mel, in the pass of samples s00")
    assert said.endswith("or go on with a lower optim.lr (--change) (step-00000004 is kept)")
    lines: list[str] = []
    assert train(config, log=lines.append).finished  # what was kept is good
    assert lines == ["resumed at step 4 of 6"]


def test_a_gradient_that_is_not_finite_names_its_group(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    training = new_run(toy_config(student_dir, shards_dir, tmp_path / "a", lora={"full": False}))
    training.folder.path.mkdir()
    name = next(n for n in training.model.trainable() if "lora_B" in n)
    training.model.trainable()[name].register_hook(lambda g: g * math.inf)
    with pytest.raises(
        RunError, match=r"^step 1: the gradient is not finite \(grad_norm/lora\), .* no checkpoint yet\)$"
    ):
        training.run()


def test_a_gradient_that_grows_stops_the_run_only_where_asked(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    """From step 23 on it is a thousandfold: ten steps later, that is enough."""

    def run(**table: Any) -> TrainingRun:
        config = toy_config(
            student_dir, shards_dir, tmp_path / str(len(table)), stages=[{"name": "answer", "steps": 36}],
            heads={"experts": []}, lora={"full": False, "rank": 1}, run={"save_every": 30, **table},
        )  # fmt: skip
        training = new_run(config)
        training.folder.path.mkdir()
        for parameter in training.model.trainable().values():
            parameter.register_hook(lambda g: g * 1000 if training.step >= 22 else g)
        return training

    assert run().run().finished
    growing = run(max_growth=50.0)
    with pytest.raises(
        RunError, match=r"step 32: the gradient's norm, .*, has been over 50 times .* for 10 steps; go on"
    ):
        growing.run()
    assert "step-00000030 is kept" in growing.checkpoints.kept()
    state = growing.checkpoints.state(growing.checkpoints.path(30))["monitor"]
    assert (len(state["norms"]), state["growing"]) == (30, 8)  # a resumed run stops at the same step
    growing.trainer.watchdog.load_state_dict(state)
    assert growing.trainer.watchdog.state_dict() == state


def test_responses_that_are_all_missing_stop_the_run(student_dir: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [toy_sample(i, 0.3, meta={}) for i in range(4)])
    with pytest.raises(
        RunError, match=r"step 5: none of 10 samples had a response; .* or go on with ce = 0 in stage a"
    ):
        train(toy_config(student_dir, shards, tmp_path / "a", stages=[{"name": "a", "steps": 9}]))
    assert train(toy_config(student_dir, shards, tmp_path / "b", stages=[{"name": "a", "steps": 9, "ce": 0}])).finished


def test_a_target_that_never_comes_is_said_once(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    training = new_run(toy_config(student_dir, shards_dir, tmp_path), log=lines.append)
    stage = training.config.stages[0]
    for step in range(1, 130):
        training.trainer.watchdog.check_counts(step, stage, {"ce": 3.0, "mel": 0.0}, {"ce": 1.0, "mel": 0.5}, 2)
    assert lines == ["step 100: none of 200 samples, in 100 steps, had a finite target of mel"]


def test_experts_are_those_that_the_run_began_with(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    begun = ShardIndex.read(str(write_shards(tmp_path / "begun", [toy_sample(0)])))
    data = json.loads((tmp_path / "begun" / "index.json").read_text())
    config = toy_config(student_dir, tmp_path / "begun", tmp_path / "a")

    def now(**experts: Any) -> ShardIndex:
        changed = {**data, "experts": {k: v for k, v in {**data["experts"], **experts}.items() if v}}
        (tmp_path / "begun" / "index.json").write_text(json.dumps(changed))
        return ShardIndex.read(str(tmp_path / "begun"))

    spec = {**data["experts"]["mel"]["spec"], "expert": "later"}
    assert same_experts(config, begun, now(later={**data["experts"]["mel"], "spec": spec})).experts == begun.experts
    with pytest.raises(
        InputError, match=r"targets of mel that this run was begun with \(\w+\) are gone; put them back"
    ):
        same_experts(config, begun, now(mel=None))
    other = {**data["experts"]["mel"], "spec": {**spec, "expert": "mel", "dim": 7}, "mean": [0.0] * 7, "std": [1.0] * 7}
    with pytest.raises(InputError, match=r"targets of mel .* are other ones now"):
        same_experts(config, begun, now(mel=other))
    folder = RunFolder(tmp_path / "run")
    folder.open(config, replace(begun, sidecars=cast(Any, {"mel": "a sidecar"})))
    assert folder.index.experts == begun.experts  # those of sidecars too
    none = {**data["experts"]["mel"], "frames": 0, "samples": 0}
    now(mel=none)
    with pytest.raises(InputError, match="has no frame of mel; extract it for these rows, or leave it out"):
        train(toy_config(student_dir, tmp_path / "begun", tmp_path / "b", heads={"experts": ["mel"]}))


def test_think_tokens_with_other_ids_are_refused_at_resume(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path / "a", steps=2)
    training = new_run(config)
    training.save()
    ids = training.model.block.new_ids
    training.model.block = replace(training.model.block, end_id=max(ids) + 1)  # as of another tokenizer
    with pytest.raises(
        RunError, match=rf"ids {min(ids)} to {max(ids)}, now {min(ids)} to {max(ids) + 1}: .* another --out"
    ):
        training.resume()


def test_a_tokenizer_that_is_larger_than_the_embeddings_is_refused(student_dir: Path, tmp_path: Path) -> None:
    student = load_student(str(student_dir))
    rows = student.model.get_input_embeddings().num_embeddings
    student.tokenizer.add_tokens([f"<|more_{i}|>" for i in range(rows)])
    config = toy_config(student_dir, tmp_path, tmp_path / "a").thinking
    with pytest.raises(InputError, match=rf"its tokenizer has ids up to \d+, its embeddings {rows} rows; take"):
        ThinkingBlock.add_to(student, config)


def test_lora_that_would_miss_the_student_is_refused(
    student_dir: Path, shards_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path, lora={"full": False})
    kind = type(load_student(str(student_dir)))
    monkeypatch.setattr(kind, "lora_targets", r".*language_model\.layers\.1\.self_attn\.q_proj")
    with pytest.raises(InputError, match=r"nothing to adapt in 1 of 2 layers \(model\.language_model\.layers\.0\)"):
        build_model(config, {})
    monkeypatch.setattr(kind, "lora_targets", r".*decoder\.q_proj")
    with pytest.raises(InputError, match="nothing to adapt in 2 of 2 layers"):
        build_model(config, {})
