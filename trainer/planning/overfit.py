"""Can this student, with these settings, learn one batch by heart? One that cannot will not learn a corpus either.

A run's first batch, again and again, by the run's own steps, but at a constant rate and without dropout. Cross-entropy
must come near zero. A distillation loss cannot be below its floor: the loss of the prediction that fits the targets
best, which for soft targets is their entropy. So its threshold is on a scale from that floor up to the loss of a head
that predicts the mean everywhere: NEAR of the way. Nothing is written.

B batch, N frames, D dim of the target, O outputs of a head, P pitch bins.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from coat.manifests import InputError, RunError
from coat.trainer.config.sections import StageConfig
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.loader import loader_of
from coat.trainer.data.sample_record import block_seconds
from coat.trainer.model.batch import Batch, Targets, expert_of
from coat.trainer.model.build import build_model
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import experts_of
from coat.trainer.model.losses import LOG2_F0, SCALARS, VOICED, VOICING, DistillLoss, pitch_bins
from coat.trainer.training.distributed.parallel import make_accelerator
from coat.trainer.training.step.schedule import loss_weights
from coat.trainer.training.step.trainer import Trainer
from coat.trainer.training.step.watchdog import Watchdog

MAX_STEPS = 600  # or as many as the run has
WARMUP = 10  # steps
MEASURE_EVERY = 20  # steps
CE_THRESHOLD = 0.1  # nats per token: the right token has 90%
NEAR = 0.1  # of the way from the floor to the loss of the mean
FALLING = 0.9  # of what a loss had been at three quarters of the steps: below, it has not come to rest
TINY = 1e-6  # probability that stands for 0


@dataclass(frozen=True)
class LossProgress:
    """One loss, per token or frame."""

    name: str
    first: float
    last: float
    threshold: float  # it is learnt at this, or below
    floor: float  # no prediction has less
    falling: bool = False  # still, at the end

    @property
    def learnt(self) -> bool:
        return self.last <= self.threshold

    def __str__(self) -> str:
        floor = f", its floor {self.floor:.3g}" if self.floor > TINY else ""
        return f"{self.name} {self.first:.3g} -> {self.last:.3g} (near is {self.threshold:.3g}{floor})"


@dataclass(frozen=True)
class OverfitResult:
    steps: int
    ids: tuple[str, ...]  # of the batch
    losses: tuple[LossProgress, ...]

    @property
    def learnt(self) -> bool:
        return all(loss.learnt for loss in self.losses)


def overfit(config: TrainConfig, log: Callable[[str], None] = lambda _: None) -> OverfitResult:
    """Train on the first batch until all losses are at their thresholds, for at most MAX_STEPS.

    Losses have weights of 1 (cross-entropy) and of `[losses]`; those of stages do not count. InputError: several
    ranks, or nothing to learn in the batch.
    """
    steps = min(MAX_STEPS, config.steps)
    config = overfit_config(config, steps)
    accelerator = make_accelerator(config)
    if accelerator.num_processes > 1:
        raise InputError("--overfit-one-batch is for one process; leave the launcher out")
    data = DataSets.of_run(config)
    experts = experts_of(config, data.index)
    model = build_model(config, experts, block_seconds(config, data))
    watchdog = Watchdog(config.run, math.inf, log=lambda _: None, kept=lambda: "nothing is written")
    trainer = Trainer(config, model, experts, accelerator, watchdog)
    batch = first_batch(data, model, log).to(accelerator.device)
    counts, weights = batch.counts(), loss_weights(config.stages[0], 0, trainer.expert_weights)
    names = [name for name, weight in weights.items() if weight and counts[name]]
    if not names:
        raise InputError(f"the first batch ({', '.join(batch.ids)}) has no response, and no target of a trained expert")
    bounds = {name: (0.0, CE_THRESHOLD) if name == "ce" else floor_and_threshold(model, name, batch) for name in names}
    history: list[dict[str, float]] = []
    model.train()
    while True:
        if trainer.steps_done % MEASURE_EVERY == 0 or trainer.steps_done == steps:
            history.append(mean_losses(trainer, batch, names))
            log(f"step {trainer.steps_done}: " + " ".join(f"{name} {value:.3f}" for name, value in history[-1].items()))
            learnt = all(history[-1][name] <= threshold for name, (_, threshold) in bounds.items())
            if learnt or trainer.steps_done == steps:
                break
        trainer.step([batch] * config.run.accumulate)
    before, last = history[len(history) * 3 // 4], history[-1]
    losses = [
        LossProgress(name, history[0][name], last[name], threshold, floor, last[name] < FALLING * before[name])
        for name, (floor, threshold) in bounds.items()
    ]
    return OverfitResult(trainer.steps_done, batch.ids, tuple(losses))


def overfit_config(config: TrainConfig, steps: int) -> TrainConfig:
    """The run's, as one stage at a constant rate, without dropout, averages, evaluation and watch over growth."""
    stage = StageConfig(name="overfit", steps=max(steps, 2 * WARMUP), distill=1.0 if config.distils else 0.0)
    changes = {
        "lora": config.lora.model_copy(update={"dropout": 0.0}),
        "optim": config.optim.model_copy(update={"schedule": "constant", "warmup": WARMUP, "ema": None}),
        "stages": (stage,),  # long enough for all of the warm-up, which is half of a stage at most
        "evaluation": config.evaluation.model_copy(update={"shards": None}),
        "run": config.run.model_copy(update={"max_growth": None, "max_skipped_steps": 0}),
    }
    return config.model_copy(update=changes)


def mean_losses(trainer: Trainer, batch: Batch, names: list[str]) -> dict[str, float]:
    """Per token or frame, of the model as it trains."""
    counts = batch.counts()
    with torch.no_grad():
        sums = trainer.forward(batch, trainer.model)
    return {name: float(sums[name]) / counts[name] for name in names}


def verdict(result: OverfitResult) -> str:
    """A line that says it was learnt. RunError, one line: which loss stayed where, and what to look at."""
    if result.learnt:
        losses = "; ".join(map(str, result.losses))
        return f"learnt {len(result.ids)} samples by heart in {result.steps} steps: {losses}"
    left = [loss for loss in result.losses if not loss.learnt]
    advice = []
    if any(loss.falling for loss in left):
        advice.append("it is still falling, so try a higher optim.lr or optim.heads_lr")
    if any(loss.name == "ce" and not loss.falling for loss in left):
        advice.append("look at the labels (`coat inspect-batch`: equal inputs with other answers?) and at optim.lr")
    if stuck := [loss.name for loss in left if loss.name != "ce" and not loss.falling]:
        advice.append(
            f"look at the targets of {', '.join(stuck)} (`coat inspect-batch --png`), heads.dim and optim.heads_lr"
        )
    not_learnt = "; ".join(map(str, left))
    raise RunError(f"the first batch was not learnt in {result.steps} steps: {not_learnt}; {'; '.join(advice)}")


def first_batch(data: DataSets, model: CoatModel, log: Callable[[str], None]) -> Batch:
    collator = Collator(model.student, model.block, data.index, list(model.heads.specs))
    return loader_of(data, collator, log=log).nth(1)


def floor_and_threshold(model: CoatModel, name: str, batch: Batch) -> tuple[float, float]:
    """Of an expert's loss per frame."""
    loss, target = model.heads.losses[expert_of(name)], batch.targets[expert_of(name)]
    assert isinstance(loss, DistillLoss)
    loss = loss.to(target.frames_BND.device)
    frames = int(target.mask_BN.sum())
    floor, loss_of_mean = (
        float(loss(prediction(loss, target, average), target.frames_BND, target.mask_BN)) / frames
        for average in (False, True)
    )
    return floor, floor + NEAR * (loss_of_mean - floor)


def prediction(loss: DistillLoss, target: Targets, average: bool) -> Tensor:
    """What a head would have to predict, `[B, N, O]`: for each frame what fits it best, or for all of them the mean."""
    frames_BND, mask_BN = target.frames_BND.float(), target.mask_BN

    def best_or_mean(values_BND: Tensor, frames_BN: Tensor) -> Tensor:
        if not average:
            return values_BND
        chosen_ND = values_BND[frames_BN]
        return (chosen_ND.mean(0) if len(chosen_ND) else values_BND[0, 0]).expand_as(values_BND)

    if loss.kind == "probabilities":
        return best_or_mean(frames_BND.clamp(0, 1), mask_BN).logit(TINY)
    if loss.kind == "distribution":
        shares_BND = frames_BND.clamp(min=0)
        shares_BND = shares_BND / shares_BND.sum(-1, keepdim=True).clamp(min=TINY)
        return best_or_mean(shares_BND, mask_BN).clamp(min=TINY).log()
    standardised_BND = loss.standardise(frames_BND)
    if loss.kind != "pitch":
        return best_or_mean(standardised_BND, mask_BN)
    voicing_BN1 = frames_BND[..., VOICING : VOICING + 1].clamp(0, 1)
    voiced_BN = mask_BN & (voicing_BN1[..., 0] >= VOICED) & (frames_BND[..., LOG2_F0] > 0)
    bins_BNP = best_or_mean(pitch_bins(frames_BND[..., LOG2_F0]), voiced_BN).clamp(min=TINY).log()
    rest = best_or_mean(standardised_BND[..., SCALARS:], mask_BN)
    return torch.cat([bins_BNP, best_or_mean(voicing_BN1, mask_BN).logit(TINY), rest], dim=-1)
