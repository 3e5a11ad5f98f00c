"""What is a function of the step alone: the stage, the learning rate, the weight of the distillation."""

import math
from collections.abc import Mapping, Sequence

from coat.trainer.config.sections import OptimConfig, StageConfig


def stage_at(stages: Sequence[StageConfig], step: int) -> tuple[StageConfig, int]:
    """The stage of a step (from 0), and the step within it."""
    for stage in stages:
        if step < stage.steps:
            return stage, step
        step -= stage.steps
    return stages[-1], stages[-1].steps


def rate_factor(optim: OptimConfig, stage: StageConfig, stage_step: int) -> float:
    """What base rates are multiplied by: a linear warm-up, then what `optim.schedule` says, in each stage anew.

    cosine: down to `lr_end` at the end of the stage. wsd (warm-up, stable, decay): the whole rate until the last
    `decay` share of the stage, then down to `lr_end` by 1 - sqrt of the way (Hägele et al., arXiv 2405.18392).
    constant: the whole rate.
    """
    warmup = min(optim.warmup, stage.steps // 2)
    if stage_step < warmup:
        return stage.lr * (stage_step + 1) / warmup
    if optim.schedule == "constant":
        return stage.lr
    decay_start = warmup
    if optim.schedule == "wsd":
        decay_start = max(warmup, stage.steps - round(optim.decay * stage.steps))
    done = max(0, stage_step - decay_start) / max(1, stage.steps - decay_start)
    left = 0.5 * (1 + math.cos(math.pi * done)) if optim.schedule == "cosine" else 1 - math.sqrt(done)
    return stage.lr * (optim.lr_end + (1 - optim.lr_end) * left)


def distill_weight(stage: StageConfig, stage_step: int) -> float:
    end = stage.distill if stage.distill_end is None else stage.distill_end
    return stage.distill + (end - stage.distill) * stage_step / max(1, stage.steps - 1)


def loss_weights(stage: StageConfig, stage_step: int, experts: Mapping[str, float]) -> dict[str, float]:
    """Of `ce` and each expert: the weight of its mean loss. `experts`: what they have at `distill` 1."""
    distill = distill_weight(stage, stage_step)
    return {"ce": stage.ce} | {name: distill * weight for name, weight in experts.items()}
