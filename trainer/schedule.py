"""What is a function of the step alone: the stage, the learning rate, the weight of the distillation."""

import math
from collections.abc import Sequence

from coat.trainer.config import OptimConfig, StageConfig


def stage_at(stages: Sequence[StageConfig], step: int) -> tuple[StageConfig, int]:
    """The stage of a step (from 0), and the step within it."""
    for stage in stages:
        if step < stage.steps:
            return stage, step
        step -= stage.steps
    return stages[-1], stages[-1].steps


def rate(optim: OptimConfig, stage: StageConfig, within: int) -> float:
    """Times the base rate: linear warm-up, then a cosine down to `lr_end` at the end of the stage."""
    warmup = min(optim.warmup, stage.steps // 2)
    if within < warmup:
        return stage.lr * (within + 1) / warmup
    done = (within - warmup) / max(1, stage.steps - warmup)
    return stage.lr * (optim.lr_end + (1 - optim.lr_end) * 0.5 * (1 + math.cos(math.pi * done)))


def distill_weight(stage: StageConfig, within: int) -> float:
    end = stage.distill if stage.distill_end is None else stage.distill_end
    return stage.distill + (end - stage.distill) * within / max(1, stage.steps - 1)
