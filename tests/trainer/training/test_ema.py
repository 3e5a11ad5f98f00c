"""The moving average of the weights: its recursion by hand, in checkpoints bit for bit, and in what is exported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from coat.trainer import TrainConfig, load_run, train
from coat.trainer.training.reporting.metrics_log import Report
from coat.trainer.training.step.ema import Ema
from tests.trainer.helpers import toy_config
from tests.trainer.training.test_loop import assert_equal_runs


def test_the_average_is_its_recursion() -> None:
    weights = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    ema = Ema({"w": weights}, decay=0.5)
    expected = np.array([1.0, -2.0])
    for step in range(1, 12):
        with torch.no_grad():
            weights += step
        decay = min(0.5, (1 + step) / (10 + step))  # 2/11, 3/12, ... then 0.5 from step 8 on
        expected = decay * expected + (1 - decay) * weights.detach().numpy()
        ema.update(step)
    assert ema.averages["w"].numpy() == pytest.approx(expected, rel=1e-6)
    own = weights.detach().clone()
    with ema.in_place():
        assert weights.detach().numpy() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(weights, own)
    assert ema.averages["w"].numpy() == pytest.approx(expected, rel=1e-6)


class Stop(Exception):
    pass


def stop_at(step: int, report: Report) -> None:
    if report.step == step:
        raise Stop


def test_it_resumes_bit_for_bit_and_is_what_a_run_exports(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    def config(name: str) -> TrainConfig:
        held_out = {"shards": str(shards_dir), "every": 4, "samples": 4, "answers": 0}
        return toy_config(student_dir, shards_dir, tmp_path / name, optim={"ema": 0.9}, evaluation=held_out)

    train(config("whole"))
    with pytest.raises(Stop):
        train(config("cut"), on_report=lambda report: stop_at(5, report))
    assert not (tmp_path / "cut" / "done.json").exists()
    train(config("cut"))
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")
    evaluations = [(tmp_path / name / "evaluation.jsonl").read_text() for name in ("cut", "whole")]
    assert evaluations[0] == evaluations[1]
    assert evaluations[0].count("\n") == 2  # at step 4 and at the end

    saved = load_file(tmp_path / "whole" / "checkpoints" / "step-00000006" / "model.safetensors")
    averages = {n.removeprefix("ema."): t for n, t in saved.items() if n.startswith("ema.")}
    assert {n for n in saved if not n.startswith("ema.")} == averages.keys()
    assert any(not torch.equal(saved[n], t) for n, t in averages.items())
    loaded = load_run(tmp_path / "whole").student.model.state_dict()
    heads = load_file(tmp_path / "whole" / "heads.safetensors")
    exported = {f"network.{n}": t for n, t in loaded.items()} | {f"heads.{n}": t for n, t in heads.items()}
    assert all(torch.equal(exported[name], average) for name, average in averages.items())
