"""The step: accelerate for devices and ranks, and nothing between the losses and the optimizer.

A step is some forward passes (`run.accumulate`) on each rank. Every loss is divided by its count over all of them, so
that how a batch is split into passes and ranks never changes the gradient.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.batch import Batch
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import with_audio_losses
from coat.trainer.model.loss_scales import expert_weights, loss_scales
from coat.trainer.model.parameters import model_part, optimizer_state_by_name, parameter_groups
from coat.trainer.model.saved_weights import as_part_of
from coat.trainer.ranks import gather_from_ranks, raise_shared_error, sum_over_ranks
from coat.trainer.training.distributed.full_sharding import clip_gradients, is_sharded
from coat.trainer.training.distributed.parallel import average_gradients, distribute, fsdp_plugin
from coat.trainer.training.step.ema import Ema
from coat.trainer.training.step.loss_balance import LossBalance
from coat.trainer.training.step.measurements import gradient_norms
from coat.trainer.training.step.meter import Meter
from coat.trainer.training.step.schedule import loss_weights, rate_factor, stage_at
from coat.trainer.training.step.watchdog import NotFinite, Watchdog


@dataclass(frozen=True)
class StepCounts:
    """What the batches of a step hold: of one rank, or summed over all."""

    losses: dict[str, float]  # what each loss is divided by: label tokens (`ce`), or an expert's frames
    positions: float  # without padding
    padded_positions: float
    samples: float
    audio_s: float
    stops: float  # ranks that were asked to stop
    errors: float  # ranks whose batches could not be made

    @classmethod
    def of(cls, batches: Sequence[Batch], losses: Sequence[str], stop: bool, error: bool) -> "StepCounts":
        counts: Counter[str] = Counter()
        for batch in batches:
            counts.update(batch.counts())
        return cls(
            losses={name: counts[name] for name in losses},
            positions=sum(batch.positions[0] for batch in batches),
            padded_positions=sum(batch.positions[1] for batch in batches),
            samples=sum(len(batch) for batch in batches),
            audio_s=sum(float(batch.seconds_B.sum()) for batch in batches),
            stops=stop,
            errors=error,
        )

    def sum_over_ranks(self, accelerator: Accelerator) -> "StepCounts":
        losses, *others = astuple(self)
        sums = sum_over_ranks(accelerator, [*losses.values(), *others])
        return StepCounts(dict(zip(losses, sums, strict=False)), *sums[len(losses) :])


@dataclass(frozen=True)
class Measured:
    """Of a step, what was waited for."""

    sums: dict[str, float]  # of losses, over all passes and ranks
    not_finite: list[NotFinite]  # which losses of which passes are not, of all ranks
    norms: dict[str, float]  # of gradients, before they are clipped: grad_norm, and its groups
    state_norms: dict[str, float]  # of a loss's gradient at the states


class Trainer:
    """Model, optimizer and what watches them, on one rank. It reads and writes no file: see run.TrainingRun."""

    def __init__(
        self,
        config: TrainConfig,
        model: CoatModel,
        experts: Mapping[str, ExpertInfo],
        accelerator: Accelerator,
        watchdog: Watchdog,
    ) -> None:
        self.config, self.model, self.experts = config, model, experts
        self.accelerator, self.watchdog = accelerator, watchdog
        self.sharded = fsdp_plugin(accelerator) is not None
        self.distributed_model = distribute(model, accelerator)
        self.optimizer = torch.optim.AdamW(parameter_groups(model, config), fused=True)
        self.ema = Ema(model.trainable(), config.optim.ema) if config.optim.ema else None
        losses = with_audio_losses(config, experts)
        self.scales = loss_scales(config.losses, losses)
        self.expert_weights = expert_weights(config.losses, losses)
        self.balance = LossBalance(config.losses, list(losses))
        self.meter = Meter()
        self.steps_done, self.samples, self.audio_s = 0, 0, 0.0

    def step(self, batches: Sequence[Batch], *, stop: bool = False, error: Exception | None = None) -> bool:
        """Take one step; whether any rank was asked to stop. Where any rank has an error, all raise it."""
        stage, stage_step = stage_at(self.config.stages, self.steps_done)
        weights = self.balance.applied(loss_weights(stage, stage_step, self.expert_weights))
        counts = StepCounts.of(batches, list(weights), stop, error is not None).sum_over_ranks(self.accelerator)
        if counts.errors:
            raise_shared_error(self.accelerator, error)
        if stage_step == 0:
            self.watchdog.begin_stage()
        self.watchdog.check_counts(self.steps_done + 1, stage, counts.losses, weights, round(counts.samples))
        found = self.measure(self.backward(batches, counts.losses, weights), list(weights), batches)
        ids = [id for batch in batches for id in batch.ids]
        if found.not_finite or not self.update(rate_factor(self.config.optim, stage, stage_step), found, ids):
            self.skip(found.not_finite)
        else:
            self.meter.add_losses(found.sums, counts.losses, weights)
            self.learn_balance(found.sums, counts.losses, weights, found.state_norms)
            named = {f"state_grad_norm/{name}": norm for name, norm in found.state_norms.items()}
            for name, norm in {**found.norms, **named}.items():
                self.meter.add(name, norm)
        self.samples += round(counts.samples)
        self.audio_s += counts.audio_s
        self.meter.add_work(counts.positions, counts.padded_positions, counts.samples)
        return counts.stops > 0

    def backward(self, batches: Sequence[Batch], counts: Mapping[str, float], weights: Mapping[str, float]) -> Tensor:
        """Forward and backward of all passes: the sums of losses of each pass, `[passes, losses]`."""
        passes: list[Tensor] = []
        for i, batch in enumerate(batches):
            is_last = i == len(batches) - 1
            with nullcontext() if is_last or self.sharded else self.accelerator.no_sync(self.distributed_model):
                losses = self.forward(batch, self.distributed_model)
                self.accelerator.backward(self.weighted_mean(losses, counts, weights))
            passes.append(torch.stack([losses[name].detach() for name in weights]))
        if self.sharded:
            average_gradients(self.accelerator, self.model.trainable().values())
        return torch.stack(passes)

    def measure(self, losses_PL: Tensor, names: list[str], batches: Sequence[Batch]) -> "Measured":
        """Clip the gradients; what is known of a step, which is all that the host waits for in it."""
        squares_L = self.model.loss_gradient_norms.pop_squares(names, losses_PL.device)
        parameters = self.model.trainable()
        groups = gradient_norms(parameters)
        norms_G = torch.stack([self.clip(parameters), *groups.values()])
        found = torch.cat([losses_PL.flatten(), squares_L, norms_G]).tolist()  # once
        split, losses = losses_PL.numel(), len(names)
        passes = [found[i : i + losses] for i in range(0, split, losses)]
        totals = [sum(values) for values in zip(*passes, strict=True)]
        shared = sum_over_ranks(self.accelerator, [*totals, *found[split : split + losses]])
        sums = dict(zip(names, shared, strict=False))
        not_finite: list[NotFinite] = []
        if wrong := [name for name, value in sums.items() if not math.isfinite(value)]:
            own = [
                (name, batch.ids)
                for values, batch in zip(passes, batches, strict=True)
                for name, value in zip(names, values, strict=True)
                if not math.isfinite(value)
            ]
            not_finite = gather_from_ranks(self.accelerator, own) or [(name, ()) for name in wrong]
        ranks = self.accelerator.num_processes  # each rank's losses are multiplied by it: see `weighted_mean`
        state_norms = [math.sqrt(square) / ranks for square in shared[losses:]]
        norms = dict(zip(["grad_norm", *groups], found[split + losses :], strict=True))
        return Measured(sums, not_finite, norms, dict(zip(names, state_norms, strict=True)))

    def clip(self, parameters: Mapping[str, torch.nn.Parameter]) -> Tensor:
        """Clip the gradients; the norm of all before.

        Detached heads are clipped by themselves: what they learn must not shorten the student's steps.
        """
        clip = clip_gradients if is_sharded(parameters.values()) else self.accelerator.clip_grad_norm_
        parts = [list(parameters.values())]
        if self.config.heads.detach:
            of_heads = {name: model_part(name).startswith("heads/") for name in parameters}
            parts = [[p for name, p in parameters.items() if of_heads[name] is own] for own in (False, True)]
        norms = [cast(Tensor, clip(part, self.config.optim.clip)) for part in parts if part]
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))

    def update(self, rate: float, found: "Measured", ids: Sequence[str]) -> bool:
        """Change the weights by the gradients, at `rate` times the base rates; False: they are not finite, and nothing
        was changed.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        norm = found.norms["grad_norm"]
        if not math.isfinite(norm):
            groups = {name: value for name, value in found.norms.items() if name != "grad_norm"}
            ids = gather_from_ranks(self.accelerator, list(ids))
            self.watchdog.gradient_not_finite(self.steps_done + 1, groups, ids)
            return False
        self.watchdog.check_gradient(self.steps_done + 1, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps_done += 1
        if self.ema is not None:
            self.ema.update(self.steps_done)
        return True

    def skip(self, not_finite: Sequence[NotFinite]) -> None:
        """Leave a step out: its samples are gone by, its gradients are nobody's, and no weight is changed.

        The step counts, so that a run has as many as its stages say. RunError where no more may be left out.
        """
        if not_finite:
            self.watchdog.loss_not_finite(self.steps_done + 1, not_finite)
        self.optimizer.zero_grad()
        self.steps_done += 1

    def learn_balance(
        self,
        sums: Mapping[str, float],
        counts: Mapping[str, float],
        weights: Mapping[str, float],
        norms: Mapping[str, float],
    ) -> None:
        """For the next step's weights. What this one's were multiplied by is logged."""
        seen = [name for name in self.scales if counts[name]]
        for name, factor in self.balance.factors().items():
            self.meter.add(f"balance/{name}", factor)
        self.balance.update(
            {name: sums[name] / counts[name] / self.scales[name] for name in seen},
            {name: norms[name] / weights[name] / self.scales[name] for name in seen if weights[name]},
        )

    def forward(self, batch: Batch, model: Callable[[Batch], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Sums of losses, in the precision of the run."""
        with self.accelerator.autocast():
            return model(batch.to(self.accelerator.device))

    def weighted_mean(
        self, losses: Mapping[str, Tensor], counts: Mapping[str, float], weights: Mapping[str, float]
    ) -> Tensor:
        """sum_k w_k L_k / count_k; times ranks, since gradients are averaged over them."""
        terms = [weights[name] * loss / max(counts[name], 1.0) for name, loss in losses.items()]
        return torch.stack(terms).sum() * self.accelerator.num_processes

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Within, the model is as it is evaluated and exported: with averaged weights, where there are some."""
        return nullcontext() if self.ema is None else self.ema.in_place()

    def rates(self) -> dict[str, float]:
        """Learning rates of the last step."""
        stage, stage_step = stage_at(self.config.stages, self.steps_done - 1)
        factor = rate_factor(self.config.optim, stage, stage_step)
        optim = self.config.optim
        own = {"lr/rows": optim.rows_lr, "lr/student": optim.student_lr}
        rates = {"lr": optim.lr, "lr/heads": optim.heads_lr} | {k: lr for k, lr in own.items() if lr is not None}
        return {name: lr * factor for name, lr in rates.items()}

    def weights(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint: what is trained, and its averages."""
        return {**self.model.trainable(), **(self.ema.tensors() if self.ema else {})}

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Its moments; rates and other settings are the config's, which may have changed."""
        trainable = self.model.trainable()
        by_name, now = optimizer_state_by_name(state, trainable), self.optimizer.state_dict()
        names = {i: n for g in now["param_groups"] for i, n in zip(g["params"], g["param_names"], strict=True)}
        moments = {
            i: {key: as_part_of(trainable[name], value) for key, value in values.items()}
            for i, name in names.items()
            if (values := by_name[name]) is not None
        }
        self.optimizer.load_state_dict({**now, "state": moments})

    def state_dict(self) -> dict[str, Any]:
        """All else that a checkpoint holds of it; the step is the checkpoint's own."""
        return {
            "meter": self.meter.state_dict(),
            "samples": self.samples,
            "audio_s": self.audio_s,
            "monitor": self.watchdog.state_dict(),
            "balance": self.balance.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.meter.load_state_dict(state["meter"])
        self.watchdog.load_state_dict(state["monitor"])
        self.balance.load_state_dict(state.get("balance", {}))  # runs of before have none
        self.steps_done, self.samples, self.audio_s = state["step"], state["samples"], state["audio_s"]
