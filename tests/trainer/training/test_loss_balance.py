"""Weights that follow the training: what they come to, that a resumed run has them, what runs of before mean."""

import json
import math
from pathlib import Path

import pytest

from coat.trainer import TrainConfig, train
from coat.trainer.config.sections import LossConfig
from coat.trainer.run_folder import read_metrics
from coat.trainer.training.reporting.metrics_log import Report
from coat.trainer.training.step.loss_balance import LARGEST_STEP, RATE, LossBalance
from tests.trainer.helpers import toy_config
from tests.trainer.training.test_loop import assert_equal_runs

BALANCES = ("grad_norm", "uncertainty")


def balance(kind: str, names: list[str]) -> LossBalance:
    return LossBalance(LossConfig.model_validate({"balance": kind}), names)


def test_gradient_norms_are_made_equal_and_keep_their_mean() -> None:
    made, pulls = balance("grad_norm", ["a", "b", "c"]), {"a": 8.0, "b": 2.0, "c": 0.5}
    assert made.factors() == {}  # nothing was seen yet
    assert made.applied({"ce": 0.1, "a": 3.0}) == {"ce": 0.1, "a": 3.0}
    made.update({}, pulls)
    assert {n: pulls[n] * f for n, f in made.factors().items()} == pytest.approx(dict.fromkeys("abc", 2.0))
    assert math.prod(made.factors().values()) == pytest.approx(1.0)
    weights = made.applied({"ce": 0.1, "a": 3.0, "b": 1.0, "c": 1.0})  # weights stay what they say
    assert (weights["ce"], weights["a"] * 8.0) == (0.1, pytest.approx(3 * weights["b"] * 2.0))
    made.update({}, {"a": 8.0, "b": 0.0})  # nothing of c in this step, and no gradient of b
    assert made.factors()["a"] == pytest.approx(0.25)
    before = made.factors()["b"]
    made.update({}, {"a": 8.0, "b": 2000.0, "c": 0.5})  # one step is not believed
    assert made.factors()["b"] == pytest.approx(before, rel=0.15)


def test_log_variances_come_to_rest_at_the_loss() -> None:
    """exp(-s) L + s is least at s = log L."""
    made, means = balance("uncertainty", ["a", "b"]), {"a": 0.25, "b": 3.0}
    assert made.factors() == {"a": 1.0, "b": 1.0}
    made.update(means, {})
    assert made.values["a"] == pytest.approx(RATE * (0.25 - 1))  # a gradient step
    for _ in range(1500):
        made.update(means, {})
    assert made.factors() == pytest.approx({"a": 4.0, "b": 1 / 3}, rel=1e-3)
    made.update({"a": 1e30}, {})
    assert made.values["a"] == pytest.approx(math.log(0.25) + LARGEST_STEP, rel=1e-3)


def test_fixed_weights_stay() -> None:
    made = balance("fixed", ["a"])
    made.update({"a": 3.0}, {"a": 2.0})
    assert made.applied({"ce": 1.0, "a": 0.3}) == {"ce": 1.0, "a": 0.3}


@pytest.mark.parametrize("kind", BALANCES)
def test_its_state_is_exact_and_of_its_kind_alone(kind: str) -> None:
    made, again, other = balance(kind, ["a", "b"]), balance(kind, ["a", "b"]), balance("fixed", ["a", "b"])
    for n in range(5):
        made.update({"a": 0.1 * n, "b": 1 / 3}, {"a": 0.7 + n, "b": 0.1})
    state = json.loads(json.dumps(made.state_dict()))
    again.load_state_dict(state)
    assert again.factors() == made.factors()
    other.load_state_dict(state)
    assert other.factors() == {}
    again.load_state_dict({})  # of a run of before
    assert again.factors() == made.factors()


def test_factors_are_the_same_in_whatever_order_a_checkpoint_names_them() -> None:
    names = [f"e{n}" for n in range(9)]
    one, other = balance("grad_norm", names), balance("grad_norm", names)
    one.update({}, {name: 0.37 * n + 1 / (n + 3) for n, name in enumerate(names)})
    values = dict(reversed(one.state_dict()["values"].items()))
    other.load_state_dict({"kind": "grad_norm", "values": values})
    assert other.factors() == one.factors()


class Stop(Exception):
    pass


def stop_at(step: int, report: Report) -> None:
    if report.step == step:
        raise Stop


@pytest.mark.parametrize("kind", BALANCES)
def test_a_balanced_run_resumes_bit_for_bit(kind: str, student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    def config(name: str, balance: str = kind) -> TrainConfig:
        return toy_config(student_dir, shards_dir, tmp_path / name, losses={"balance": balance})

    train(config("whole"))
    with pytest.raises(Stop):
        train(config("cut"), on_report=lambda report: stop_at(5, report))
    train(config("cut"))
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")
    last = read_metrics(tmp_path / "whole")[-1]
    factors = {name: value for name, value in last.items() if name.startswith("balance/")}
    assert set(factors) == {f"balance/{name}" for name in ("events", "mel", "pitch", "prosody")}
    assert len(set(factors.values())) == 4
    train(config("fixed", "fixed"))
    fixed = read_metrics(tmp_path / "fixed")[-1]
    assert not any(name.startswith("balance/") for name in fixed)
    assert fixed["distill/mel"] != last["distill/mel"]


def test_balanced_experts_pull_alike(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    """At a rate at which a run stays where it begins, so that what they pull does, too."""

    def spread(kind: str) -> float:
        config = toy_config(
            student_dir, shards_dir, tmp_path / kind, losses={"balance": kind, "scale": "none"},
            data={"batch_size": 5}, stages=[{"name": "distill", "steps": 12}], optim={"lr": 1e-7, "heads_lr": 1e-7},
            run={"save_every": 100, "log_every": 6},
        )  # fmt: skip
        train(config)
        row = read_metrics(tmp_path / kind)[-1]
        pulls = [row[f"state_grad_norm/{name}"] for name in ("events", "mel", "pitch", "prosody")]
        return max(pulls) / min(pulls)

    assert spread("fixed") > 2
    assert spread("grad_norm") < 1.5  # batches differ
