"""Fidelity in evaluations beside the training, on ranks; and heads that teach nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from coat.trainer import train
from coat.trainer.fidelity.fidelity import FidelityOptions, measure_fidelity
from coat.trainer.fidelity.results import RUN
from coat.trainer.ranks import launched_accelerator
from coat.trainer.run_folder import read_evaluations, read_metrics
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.training.processes import run_ranks, train_and_die
from tests.trainer.training.test_loop import RARELY, TIMES, new_run


@pytest.fixture(scope="module")
def held_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [toy_sample(i, 0.5 + 0.1 * (i - 100)) for i in range(100, 106)]
    del samples[3]["targets"]["pitch"]
    return write_shards(tmp_path_factory.mktemp("held"), samples)


def evaluation(shards: Path, **changes: Any) -> dict[str, Any]:
    return {"shards": str(shards), "every": 2, "answers": 2, "max_new_tokens": 2, "fidelity": True, **changes}


def trained(config: Any) -> dict[str, torch.Tensor]:
    training = new_run(config)
    training.folder.path.mkdir()
    training.run()
    return {name: weight.detach().clone() for name, weight in training.model.trainable().items()}


def rows(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(run)]


def fidelity_of(row: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key.startswith("fidelity/")}


def measured(run: Path, held: Path) -> dict[str, float]:
    found = measure_fidelity(FidelityOptions(run=str(run), shards=(str(held),)))
    return {
        f"fidelity/{one.expert}/{name}": figure.value
        for one in found.experts
        for name, figure in one.figures[RUN].items()
    }


def test_training_is_bit_for_bit_what_it_is_without(
    student_dir: Path, shards_dir: Path, held_dir: Path, tmp_path: Path
) -> None:
    weights = []
    for name, fidelity in (("without", False), ("with", True)):
        table = evaluation(held_dir, fidelity=fidelity)
        config = toy_config(
            student_dir, shards_dir, tmp_path / name, steps=4, evaluation=table, run=RARELY,
            lora={"full": False, "dropout": 0.3},
        )  # fmt: skip
        weights.append(trained(config))
    assert rows(tmp_path / "without") == rows(tmp_path / "with")
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    without, found = (read_evaluations(tmp_path / name) for name in ("without", "with"))
    assert [{k: v for k, v in row.items() if k not in fidelity_of(row)} for row in found] == without
    assert [row["step"] for row in found] == [2, 4]


def test_figures_are_those_of_the_command_on_two_ranks_as_on_one(
    student_dir: Path, shards_dir: Path, held_dir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    table = evaluation(held_dir, every=100)
    best = {"best": "fidelity/events/auc", **RARELY}
    config = toy_config(student_dir, shards_dir, run, steps=2, evaluation=table, run=best)
    assert run_ranks(2, train_and_die, config, None, tmp_path / "log") == [0, 0]
    last = fidelity_of(read_evaluations(run)[-1])
    assert {"fidelity/pitch/raw_pitch_accuracy", "fidelity/mel/retrieval", "fidelity/prosody/ccc"} <= set(last)
    assert json.loads((run / "best.json").read_text())["step"] == 2
    alone = measured(run, held_dir)
    assert last == pytest.approx(alone, abs=1e-5)
    assert run_ranks(2, measure_on_rank, run, held_dir, tmp_path) == [0, 0]
    for rank in range(2):
        data = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert data["clips"] == 6
        shared = {
            f"fidelity/{one['expert']}/{name}": figure["value"]
            for one in data["experts"]
            for name, figure in one["figures"][RUN].items()
        }
        assert shared == pytest.approx(alone, abs=1e-5)


def measure_on_rank(run: Path, held: Path, out: Path) -> None:
    accelerator = launched_accelerator()
    assert accelerator is not None
    found = measure_fidelity(FidelityOptions(run=str(run), shards=(str(held),)), accelerator)
    (out / f"rank-{accelerator.process_index}.json").write_text(json.dumps(found.to_dict()))


@pytest.mark.parametrize("thinking", [{"count": 4}, {"count": 4, "states": "both", "layer": 0}], ids=["block", "both"])
def test_detached_heads_learn_and_the_student_is_as_in_plain_fine_tuning(
    student_dir: Path, shards_dir: Path, tmp_path: Path, thinking: dict[str, Any]
) -> None:
    """Bit for bit, with a clip that heads would otherwise take their part of."""
    weights = {}
    for name, distill, detach in (("plain", 0.0, False), ("detached", 1.0, True), ("distilled", 1.0, False)):
        stage = {"name": "answer", "steps": 3, "ce": 1.0, "distill": distill}
        config = toy_config(
            student_dir, shards_dir, tmp_path / name, thinking=thinking, heads={"detach": detach}, stages=[stage],
            optim={"clip": 0.05}, run={**RARELY, "accumulate": 2},
        )  # fmt: skip
        weights[name] = trained(config)
    plain, detached = weights["plain"], weights["detached"]
    assert plain
    assert all(torch.equal(weight, detached[name]) for name, weight in plain.items())
    assert not all(torch.equal(weight, weights["distilled"][name]) for name, weight in plain.items())
    heads = {name: weight for name, weight in detached.items() if name.startswith(("heads.", "audio_heads."))}
    assert len(heads) == len(detached) - len(plain)
    at_start = dict(new_run(config).model.named_parameters())
    assert not any(torch.equal(weight, at_start[name]) for name, weight in heads.items() if weight.ndim > 1)
    assert all(row["state_grad_norm/mel"] > 0 for row in rows(tmp_path / "detached"))  # what they would have taught


def test_detached_runs_are_trained_by_train(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(
        student_dir, shards_dir, tmp_path / "run", steps=2, heads={"detach": True},
        losses={"balance": "grad_norm"}, run={"gradient_checkpointing": True},
    )  # fmt: skip
    train(config, log=lambda _: None)
    assert (tmp_path / "run" / "heads.safetensors").exists()
