"""Can this student, with these settings, learn one batch by heart? What cannot do that will not learn a corpus.

A run's first batch, again and again at a constant rate, without dropout. Cross-entropy must come near zero. A
distillation loss cannot be below its floor: the loss of the prediction that fits the targets best, which for soft
targets is their entropy. So it is measured on a scale of its own, from that floor up to the loss of a head that says
the mean everywhere, and must come down to NEAR of it. Nothing is written.

B batch, N frames, D dim of the target, O outputs of a head, P pitch bins.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from coat.manifests import InputError, RunError, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.loader import Loader
from coat.trainer.data.stream import ShardStream
from coat.trainer.model.batch import Batch, Targets
from coat.trainer.model.build import build_model
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import experts_of
from coat.trainer.model.losses import LOG2_F0, SCALARS, VOICED, VOICING, DistillLoss, pitch_bins
from coat.trainer.model.parameters import parameter_groups
from coat.trainer.training.parallel import precision

STEPS = 600  # at most, or as many as the run has
WARMUP = 10  # steps
LOOK_EVERY = 20  # steps
CE_NEAR = 0.1  # nats per token: the right token has 90%
NEAR = 0.1  # of the way from the floor to the loss of the mean
FALLING = 0.9  # of what a loss had been at three quarters of the steps: below, it has not come to rest
TINY = 1e-6  # probability that stands for 0


@dataclass(frozen=True)
class Fit:
    """One loss, per token or frame."""

    name: str
    first: float
    last: float
    near: float  # it is learnt at this, or below
    floor: float  # no prediction has less
    falling: bool = False  # still, at the end

    @property
    def learnt(self) -> bool:
        return self.last <= self.near

    def __str__(self) -> str:
        floor = f", its floor {self.floor:.3g}" if self.floor > TINY else ""
        return f"{self.name} {self.first:.3g} -> {self.last:.3g} (near is {self.near:.3g}{floor})"


@dataclass(frozen=True)
class Overfit:
    steps: int
    ids: tuple[str, ...]  # of the batch
    fits: tuple[Fit, ...]

    @property
    def learnt(self) -> bool:
        return all(fit.learnt for fit in self.fits)


def overfit(config: TrainConfig, log: Callable[[str], None] = lambda _: None) -> Overfit:
    """Train on the first batch until all losses are near their floors, for at most STEPS.

    Losses have weights of 1 (cross-entropy) and of `[losses]`; those of stages do not count. InputError: several
    ranks, or nothing to learn in the batch.
    """
    accelerator = Accelerator(mixed_precision=precision(config))
    if accelerator.num_processes > 1:
        raise InputError("--overfit-one-batch is for one process; leave the launcher out")
    config = config.model_copy(update={"lora": config.lora.model_copy(update={"dropout": 0.0})})
    index = ShardIndex.read(config.data.shards)
    experts = experts_of(config, index)
    model = build_model(config, experts)
    batch = first_batch(config, index, model, log).to(accelerator.device)
    optimizer = torch.optim.AdamW(parameter_groups(model, config))
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    counts = batch.counts()
    weights = {"ce": 1.0} | {name: config.losses.weight(name, expert.spec.family) for name, expert in experts.items()}
    judged = [name for name, weight in weights.items() if weight and counts[name]]
    if not judged:
        raise InputError(f"the first batch ({', '.join(batch.ids)}) has no response, and no target of a trained expert")
    bounds = {name: (0.0, CE_NEAR) if name == "ce" else bounds_of(model, name, batch) for name in judged}
    history: list[dict[str, float]] = []
    step, steps = 0, min(STEPS, config.steps)
    wrapped.train()
    for step in range(steps + 1):
        with accelerator.autocast():
            losses = wrapped(batch)
        means = {name: losses[name] / counts[name] for name in judged}
        if step % LOOK_EVERY == 0 or step == steps:
            history.append({name: float(mean.detach()) for name, mean in means.items()})
            log(f"step {step}: " + " ".join(f"{name} {value:.3f}" for name, value in history[-1].items()))
            if all(history[-1][name] <= near for name, (_, near) in bounds.items()) or step == steps:
                break
        accelerator.backward(torch.stack([weights[name] * mean for name, mean in means.items()]).sum())
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * min(1.0, (step + 1) / WARMUP)
        accelerator.clip_grad_norm_(list(model.trainable().values()), config.optim.clip)
        optimizer.step()
        optimizer.zero_grad()
    before, last = history[len(history) * 3 // 4], history[-1]
    fits = [
        Fit(name, history[0][name], last[name], near, floor, last[name] < FALLING * before[name])
        for name, (floor, near) in bounds.items()
    ]
    return Overfit(step, batch.ids, tuple(fits))


def check(result: Overfit) -> str:
    """A line that says it was learnt. RunError, one line: which loss stayed where, and what to look at."""
    if result.learnt:
        losses = "; ".join(map(str, result.fits))
        return f"learnt {len(result.ids)} samples by heart in {result.steps} steps: {losses}"
    left = [fit for fit in result.fits if not fit.learnt]
    do = []
    if any(fit.falling for fit in left):
        do.append("it is still falling, so try a higher optim.lr or optim.heads_lr")
    if any(fit.name == "ce" and not fit.falling for fit in left):
        do.append("look at the labels (`coat inspect-batch`: equal inputs with other answers?) and at optim.lr")
    if stuck := [fit.name for fit in left if fit.name != "ce" and not fit.falling]:
        do.append(
            f"look at the targets of {', '.join(stuck)} (`coat inspect-batch --png`), heads.dim and optim.heads_lr"
        )
    stayed = "; ".join(map(str, left))
    raise RunError(f"the first batch was not learnt in {result.steps} steps: {stayed}; {'; '.join(do)}")


def first_batch(config: TrainConfig, index: ShardIndex, model: CoatModel, log: Callable[[str], None]) -> Batch:
    stream = ShardStream(index, seed=config.data.seed, shuffle=config.data.shuffle)
    collator = Collator(model.student, model.block, index, list(model.heads.specs))
    return Loader(stream, collator, config.data, log).nth(1)


def bounds_of(model: CoatModel, name: str, batch: Batch) -> tuple[float, float]:
    """Of an expert's loss per frame: its floor, and what is near it."""
    loss, target = model.heads.losses[name], batch.targets[name]
    assert isinstance(loss, DistillLoss)
    loss = loss.to(target.frames_BND.device)
    frames = int(target.mask_BN.sum())
    floor, mean = (
        float(loss(prediction(loss, target, average), target.frames_BND, target.mask_BN)) / frames
        for average in (False, True)
    )
    return floor, floor + NEAR * (mean - floor)


def prediction(loss: DistillLoss, target: Targets, average: bool) -> Tensor:
    """What a head would have to give, `[B, N, O]`: for each frame what fits it best, or for all of them the mean."""
    frames_BND, mask_BN = target.frames_BND.float(), target.mask_BN

    def of(values_BND: Tensor, frames_BN: Tensor) -> Tensor:
        if not average:
            return values_BND
        chosen_ND = values_BND[frames_BN]
        return (chosen_ND.mean(0) if len(chosen_ND) else values_BND[0, 0]).expand_as(values_BND)

    if loss.kind == "probabilities":
        return of(frames_BND.clamp(0, 1), mask_BN).logit(TINY)
    if loss.kind == "distribution":
        shares_BND = frames_BND.clamp(min=0)
        shares_BND = shares_BND / shares_BND.sum(-1, keepdim=True).clamp(min=TINY)
        return of(shares_BND, mask_BN).clamp(min=TINY).log()
    standardised_BND = loss.standardise(frames_BND)
    if loss.kind != "pitch":
        return of(standardised_BND, mask_BN)
    voicing_BN1 = frames_BND[..., VOICING : VOICING + 1].clamp(0, 1)
    voiced_BN = mask_BN & (voicing_BN1[..., 0] >= VOICED) & (frames_BND[..., LOG2_F0] > 0)
    bins_BNP = of(pitch_bins(frames_BND[..., LOG2_F0]), voiced_BN).clamp(min=TINY).log()
    rest = of(standardised_BND[..., SCALARS:], mask_BN)
    return torch.cat([bins_BNP, of(voicing_BN1, mask_BN).logit(TINY), rest], dim=-1)
