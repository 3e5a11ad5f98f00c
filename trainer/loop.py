"""The training loop: accelerate for devices and ranks, and nothing between the losses and the optimizer.

A step is `run.accumulate` forward passes on each rank. Every loss is divided by its count over all of them, so
that how a batch is cut into passes and ranks never changes the gradient.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from coat.manifests import RunError, ShardIndex
from coat.trainer.batches import Batch, Collator
from coat.trainer.checkpoint import Checkpoints, load_optimizer, load_weights, restore_random_state
from coat.trainer.config import StageConfig, TrainConfig
from coat.trainer.data import ShardStream
from coat.trainer.folder import RunFolder
from coat.trainer.loader import Loader
from coat.trainer.metrics import Meter, MetricsLog, Report
from coat.trainer.model import CoatModel, build_model, experts_of, parameter_groups
from coat.trainer.schedule import distill_weight, rate, stage_at
from coat.trainer.stopping import stop_signals


@dataclass(frozen=True)
class TrainResult:
    run: Path
    step: int
    finished: bool  # False: stopped by a signal; the same call goes on
    seconds: float  # of this call
    skipped: dict[str, int]  # samples left out by reason, since the run began


def train(
    config: TrainConfig,
    *,
    restart: bool = False,
    on_report: Callable[[Report], None] = lambda _: None,
    log: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Train, or go on with, the run of `config.run.out`.

    `on_report` is called at every logged step, `log` with single lines for the user; both on the main rank.
    InputError: the folder holds a run with another config, or data and student do not fit. RunError: the loss
    is not finite.
    """
    index = ShardIndex.read(config.data.shards)
    folder = RunFolder(Path(config.run.out))
    accelerator = Accelerator(mixed_precision=precision(config))
    say = log if accelerator.is_main_process else lambda _: None
    with accelerator.main_process_first():
        if accelerator.is_main_process or not folder.config_file.exists():
            folder.open(config, index, restart)
    if folder.finished:
        say(f"{folder.path}: this run is finished; --restart trains it anew")
        return TrainResult(folder.path, config.steps, True, 0.0, {})
    return Trainer(config, index, folder, accelerator, on_report, say).run()


class Trainer:
    """One process of a run."""

    def __init__(
        self,
        config: TrainConfig,
        index: ShardIndex,
        folder: RunFolder,
        accelerator: Accelerator,
        on_report: Callable[[Report], None],
        log: Callable[[str], None],
    ) -> None:
        self.config, self.folder, self.accelerator, self.on_report, self.log = (
            config, folder, accelerator, on_report, log,
        )  # fmt: skip
        self.experts = experts_of(config, index)
        self.model: CoatModel = build_model(config, self.experts)
        optimizer = torch.optim.AdamW(parameter_groups(self.model, config), betas=config.optim.betas)
        self.wrapped, self.optimizer = accelerator.prepare(self.model, optimizer)
        stream = ShardStream(
            index,
            seed=config.data.seed,
            shuffle=config.data.shuffle,
            rank=accelerator.process_index,
            ranks=accelerator.num_processes,
        )
        collator = Collator(self.model.student, self.model.block, index, list(self.experts))
        self.loader = Loader(stream, collator, config.data, log, pin=accelerator.device.type == "cuda")
        self.checkpoints = Checkpoints(folder.checkpoints, config.run.keep, log)
        self.meter = Meter()
        self.step, self.first, self.samples, self.audio_s = 0, 0, 0, 0.0

    def run(self) -> TrainResult:
        self.resume()
        self.model.train()
        start, self.first = time.monotonic(), self.step
        metrics = MetricsLog(self.folder.path, self.step) if self.accelerator.is_main_process else None
        batches = iter(self.loader)
        try:
            with stop_signals() as stopped:
                stop = False
                while self.step < self.config.steps and not stop:
                    began = time.monotonic()
                    given = list(islice(batches, self.config.run.accumulate))
                    waited = time.monotonic() - began
                    stop = self.one_step(given, bool(stopped))
                    self.meter.add("wait_share", waited, time.monotonic() - began)
                    last = stop or self.step == self.config.steps
                    if self.step % self.config.run.log_every == 0 or self.step == self.config.steps:
                        self.report(metrics, (self.step - self.first) / (time.monotonic() - start))
                    if self.step % self.config.run.save_every == 0 or last:
                        self.save()
        finally:
            batches.close()  # type: ignore[attr-defined]
            if metrics is not None:
                metrics.close()
        finished = self.step == self.config.steps
        if finished and self.accelerator.is_main_process:
            self.folder.export(self.model, self.step)
        self.accelerator.wait_for_everyone()
        seconds = time.monotonic() - start
        return TrainResult(self.folder.path, self.step, finished, seconds, dict(self.loader.skipped))

    def one_step(self, batches: Sequence[Batch], stop: bool) -> bool:
        """Forward, backward and update; whether any rank was told to stop."""
        stage, within = stage_at(self.config.stages, self.step)
        weights = self.loss_weights(stage, within)
        counts = {name: sum(b.counts()[name] for b in batches) for name in weights}
        samples, audio_s = sum(len(b) for b in batches), sum(float(b.seconds_B.sum()) for b in batches)
        shared = self.reduce([*counts.values(), samples, audio_s, float(stop)])
        totals = dict(zip(weights, shared, strict=False))
        sums = dict.fromkeys(weights, 0.0)
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                losses = self.forward(batch)
                self.accelerator.backward(self.total(losses, totals, weights))
            for name, loss in losses.items():
                sums[name] += float(loss.detach())
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate(self.config.optim, stage, within)
        parameters = list(self.model.trainable().values())
        norm = float(cast(Tensor, self.accelerator.clip_grad_norm_(parameters, self.config.optim.clip)))
        if not math.isfinite(norm):
            raise RunError(
                f"step {self.step + 1}: the gradient is not finite; lower optim.lr (the last checkpoint is kept)"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.samples += round(shared[-3])
        self.audio_s += shared[-2]
        self.measure(dict(zip(weights, self.reduce(list(sums.values())), strict=True)), totals, weights, norm)
        return shared[-1] > 0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with self.accelerator.autocast():
            return self.wrapped(batch.to(self.accelerator.device))

    def total(self, losses: dict[str, Tensor], totals: dict[str, float], weights: dict[str, float]) -> Tensor:
        """sum_k w_k L_k / count_k; times ranks, since gradients are averaged over them."""
        terms = [weights[name] * loss / max(totals[name], 1.0) for name, loss in losses.items()]
        return torch.stack(terms).sum() * self.accelerator.num_processes

    def loss_weights(self, stage: StageConfig, within: int) -> dict[str, float]:
        distill = distill_weight(stage, within)
        table = self.config.losses
        return {"ce": stage.ce} | {n: distill * table.weights.get(n, table.default) for n in self.experts}

    def reduce(self, values: Sequence[float]) -> list[float]:
        """Sums over ranks."""
        if self.accelerator.num_processes == 1:
            return [float(v) for v in values]
        tensor = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(tensor, "sum").tolist()  # type: ignore[union-attr]

    def measure(self, sums: dict[str, float], totals: dict[str, float], weights: dict[str, float], norm: float) -> None:
        for name, value in sums.items():
            self.meter.add(name if name == "ce" else f"distill/{name}", value, totals[name])
        self.meter.add("loss", sum(weights[n] * v / max(totals[n], 1.0) for n, v in sums.items()), 1)
        self.meter.add("grad_norm", norm, 1)

    def report(self, metrics: MetricsLog | None, steps_per_s: float) -> None:
        stage, within = stage_at(self.config.stages, self.step - 1)
        values = {
            **self.meter.means(),
            "lr": self.config.optim.lr * rate(self.config.optim, stage, within),
            "samples": self.samples,
            "audio_hours": self.audio_s / 3600,
            "steps_per_s": steps_per_s,
            "samples_per_s": steps_per_s * self.samples / self.step,
        }
        self.meter.clear()
        if metrics is not None:
            report = Report(self.step, self.config.steps, self.first, stage.name, values)
            metrics.write(report)
            self.on_report(report)

    def save(self) -> None:
        accelerator, step = self.accelerator, self.step
        if accelerator.is_main_process:
            self.checkpoints.begin(step)
        accelerator.wait_for_everyone()
        self.checkpoints.add_rank(step, accelerator.process_index, self.loader.state_dict())
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            state = {"meter": self.meter.state_dict(), "samples": self.samples, "audio_s": self.audio_s}
            self.checkpoints.finish(step, self.model.trainable(), self.optimizer.state_dict(), state)
        accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, where there is one."""
        checkpoint = self.checkpoints.newest()
        if checkpoint is None:
            torch.manual_seed(self.config.run.seed + self.accelerator.process_index)
            return
        rank = self.accelerator.process_index
        load_weights(checkpoint / "model.safetensors", self.model.trainable())
        self.optimizer.load_state_dict(load_optimizer(checkpoint))
        state = self.checkpoints.state(checkpoint)
        self.loader.load_state_dict(self.checkpoints.rank_state(checkpoint, rank))
        self.meter.load_state_dict(state["meter"])
        self.step, self.samples, self.audio_s = state["step"], state["samples"], state["audio_s"]
        restore_random_state(checkpoint, rank)
        self.log(f"resumed at step {self.step} of {self.config.steps}")


def precision(config: TrainConfig) -> str:
    """bf16 only where a GPU has it: on CPUs it is slower than float32."""
    if config.run.precision != "auto":
        return config.run.precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
