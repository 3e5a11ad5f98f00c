"""Rates and weights of losses as functions of the step, against values made by hand."""

import json
from typing import Any

import pytest

from coat.trainer import TrainConfig
from coat.trainer.training.step.schedule import distill_weight, rate_factor, stage_at


def config_of(**optim: Any) -> TrainConfig:
    stages = [{"name": "a", "steps": 10}, {"name": "b", "steps": 5, "distill": 1.0, "distill_end": 0.2, "lr": 0.5}]
    needed = {"student": {"path": "s"}, "data": {"shards": "d"}, "run": {"out": "o"}}
    return TrainConfig.from_dict({**needed, "stages": stages, "optim": {"warmup": 4, "lr_end": 0.1, **optim}}, "test")


def rates(stage: int, **optim: Any) -> list[float]:
    config = config_of(**optim)
    return [rate_factor(config.optim, config.stages[stage], s) for s in range(config.stages[stage].steps + 1)]


def test_stages_follow_each_other() -> None:
    config = config_of()
    assert [stage_at(config.stages, s)[0].name for s in (0, 9, 10, 14)] == ["a", "a", "b", "b"]
    assert [distill_weight(config.stages[1], s) for s in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert json.dumps(config.to_dict())


def test_cosine() -> None:
    # Behind four steps of warm-up: 0.1 + 0.9 * (1 + cos(pi * i / 6)) / 2.
    assert rates(0) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.939711, 0.775, 0.55, 0.325, 0.160289, 0.1], abs=1e-6)


def test_wsd_is_whole_until_the_last_share_and_then_falls_by_one_minus_sqrt() -> None:
    # decay 0.4 of 10 steps: from step 6 on 0.1 + 0.9 * (1 - sqrt(i / 4)).
    assert rates(0, schedule="wsd", decay=0.4) == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.55, 0.363604, 0.220577, 0.1], abs=1e-6
    )


def test_wsd_never_begins_to_fall_before_the_warm_up_ends() -> None:
    # warm-up is cut to half of the five steps; decay 0.9 would begin at step 0. Times the stage's own rate, 0.5.
    expected = [
        0.25,
        0.5,
        0.5,
        0.5 * (0.1 + 0.9 * (1 - (1 / 3) ** 0.5)),
        0.5 * (0.1 + 0.9 * (1 - (2 / 3) ** 0.5)),
        0.05,
    ]
    assert rates(1, schedule="wsd", decay=0.9) == pytest.approx(expected)


def test_constant() -> None:
    assert rates(0, schedule="constant") == [0.25, 0.5, 0.75] + 8 * [1.0]
