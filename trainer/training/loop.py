"""The training loop: accelerate for devices and ranks, and nothing between the losses and the optimizer.

A step is `run.accumulate` forward passes on each rank. Every loss is divided by its count over all of them, so
that how a batch is cut into passes and ranks never changes the gradient.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from coat.manifests import ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.loader import Loader
from coat.trainer.data.stream import ShardStream
from coat.trainer.model.batch import Batch
from coat.trainer.model.build import build_model
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import experts_of, same_experts
from coat.trainer.model.parameters import parameter_groups
from coat.trainer.run_folder import RunFolder
from coat.trainer.training.checkpoint import (
    Checkpoints,
    disk_errors,
    load_optimizer,
    load_weights,
    restore_random_state,
)
from coat.trainer.training.ema import Ema
from coat.trainer.training.held_out import HeldOut
from coat.trainer.training.metrics import Meter, MetricsLog, Report
from coat.trainer.training.monitor import Monitor, gradient_norms, peak_memory
from coat.trainer.training.parallel import average_gradients, make_accelerator, sharding, spread
from coat.trainer.training.ranks import agree, attempted, gathered, summed, together
from coat.trainer.training.schedule import loss_weights, rate, stage_at
from coat.trainer.training.stopping import stop_signals
from coat.trainer.training.trackers import Trackers, check_trackers


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
    change: bool = False,
    on_report: Callable[[Report], None] = lambda _: None,
    log: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train, or go on with, the run of `config.run.out`.

    `restart` drops the run that is there; `change` goes on with it though optimizer, losses or stages differ.
    `on_report` is called at every logged step, `log` with single lines for the user; both on the main rank. `stop` is
    asked in every step: True, on any rank, ends the run behind it, as SIGTERM does.
    InputError: the folder holds a run with another config, or data and student do not fit. RunError: the run cannot
    get anywhere (see monitor.Monitor); its last checkpoint stays.
    """
    check_trackers(config.run.trackers)
    folder = RunFolder(Path(config.run.out))
    accelerator = make_accelerator(config)
    say = log if accelerator.is_main_process else lambda _: None
    with together(accelerator):
        index = ShardIndex.read(config.data.shards)
        if accelerator.is_main_process:
            for line in folder.open(config, index, restart, change):
                say(f"changed from here on: {line}")
    with together(accelerator):
        folder.check_shared(accelerator.process_index)
        index = same_experts(config, folder.index, index)
    if folder.finished:
        say(f"{folder.path}: this run is finished; --restart trains it anew")
        return TrainResult(folder.path, config.steps, True, 0.0, {})
    return Trainer(config, index, folder, accelerator, on_report, say).run(stop)


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
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.on_report, self.log = on_report, log
        self.experts = experts_of(config, index)
        rank, ranks = accelerator.process_index, accelerator.num_processes
        with together(accelerator):
            stream = ShardStream(index, seed=config.data.seed, shuffle=config.data.shuffle, rank=rank, ranks=ranks)
            self.model: CoatModel = build_model(config, self.experts)
        self.wrapped, self.sharded = spread(self.model, accelerator), sharding(accelerator) is not None
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, config))
        collator = Collator(self.model.student, self.model.block, index, list(self.experts))
        self.loader = Loader(stream, collator, config.data, log, pin=accelerator.device.type == "cuda")
        self.checkpoints = Checkpoints(folder.checkpoints, config.run.keep, accelerator, log)
        self.meter = Meter()
        self.ema = Ema(self.model.trainable(), config.optim.ema) if config.optim.ema else None
        self.monitor = Monitor(config.run, 2 * index.samples * ranks, log, self.checkpoints.kept)
        self.held_out: HeldOut | None = None
        if config.evaluation.shards is not None:
            self.held_out = HeldOut(config, self.model, self.experts, accelerator, self.sharded)
        self.step, self.first, self.samples, self.audio_s = 0, 0, 0, 0.0

    def run(self, asked: Callable[[], bool] = lambda: False) -> TrainResult:
        self.resume()
        self.model.train()
        start, self.first, metrics = time.monotonic(), self.step, None
        with self.writing():
            if self.accelerator.is_main_process:
                trackers = Trackers(self.config, self.folder.path, self.log)
                metrics = MetricsLog(self.folder.path, self.step, trackers)
        batches = iter(self.loader)
        try:
            if self.step and not summed(self.accelerator, [metrics is not None and metrics.evaluated(self.step)])[0]:
                self.evaluate(metrics)  # stopped between a checkpoint and its evaluation
            with stop_signals() as stopped:
                stop = False
                while self.step < self.config.steps and not stop:
                    began = time.monotonic()
                    given = attempted(lambda: list(islice(batches, self.config.run.accumulate)))
                    waited = time.monotonic() - began
                    stop = self.one_step(given, bool(stopped) or asked())
                    self.meter.add_time(time.monotonic() - began, waited)
                    last = stop or self.step == self.config.steps
                    if self.step % self.config.run.log_every == 0 or self.step == self.config.steps:
                        self.report(metrics)
                    if self.step % self.config.run.save_every == 0 or last:
                        self.save()
                    if not stop or self.step == self.config.steps:
                        self.evaluate(metrics)
        finally:
            batches.close()  # type: ignore[attr-defined]
            if metrics is not None:
                metrics.close()
        finished = self.step == self.config.steps
        with self.writing(), self.averaged():
            if finished and self.accelerator.is_main_process:
                self.folder.export(self.model, self.step)
        seconds = time.monotonic() - start
        return TrainResult(self.folder.path, self.step, finished, seconds, dict(self.loader.skipped))

    def one_step(self, given: Sequence[Batch] | Exception, stop: bool) -> bool:
        """Forward, backward and update; whether any rank was told to stop. An error instead of batches, all raise."""
        error = given if isinstance(given, Exception) else None
        batches: Sequence[Batch] = [] if isinstance(given, Exception) else given
        stage, within = stage_at(self.config.stages, self.step)
        weights = loss_weights(stage, within, self.config.losses, self.experts)
        counts: Counter[str] = Counter()
        for batch in batches:
            counts.update(batch.counts())
        used, padded = (sum(b.positions[i] for b in batches) for i in (0, 1))
        samples, audio_s = sum(len(b) for b in batches), sum(float(b.seconds_B.sum()) for b in batches)
        own = [*(counts[n] for n in weights), used, padded, samples, audio_s, stop, error is not None]
        *shared, told, errors = summed(self.accelerator, own)
        if errors:
            agree(self.accelerator, error)
        totals, work, audio_s = dict(zip(weights, shared, strict=False)), shared[-4:-1], shared[-1]
        self.monitor.counts(self.step + 1, stage, totals, weights, round(work[-1]))
        sums, pulls = self.passes(batches, totals, weights)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate(self.config.optim, stage, within)
        trained = self.model.trainable()
        norms = gradient_norms(trained)  # before they are clipped
        norm = float(cast(Tensor, self.accelerator.clip_grad_norm_(list(trained.values()), self.config.optim.clip)))
        self.monitor.norm(self.step + 1, within, norm, norms, [i for b in batches for i in b.ids])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.step)
        self.samples += round(work[-1])
        self.audio_s += audio_s
        self.meter.add_step(sums, totals, weights, work)
        for name, value in {"grad_norm": norm, **norms, **pulls}.items():
            self.meter.add(name, value, 1)
        return told > 0

    def passes(
        self, batches: Sequence[Batch], totals: dict[str, float], weights: dict[str, float]
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Forward and backward of all passes: sums of the losses over all ranks, and how hard each pulls."""
        sums = dict.fromkeys(weights, 0.0)
        culprits: list[tuple[str, tuple[str, ...]]] = []  # losses that are not finite, and the samples of their pass
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            with nullcontext() if last or self.sharded else self.accelerator.no_sync(self.wrapped):
                losses = self.forward(batch, self.wrapped)
                self.accelerator.backward(self.total(losses, totals, weights))
            for name, loss in losses.items():
                value = float(loss.detach())
                sums[name] += value
                culprits += [] if math.isfinite(value) else [(name, batch.ids)]
        if self.sharded:
            average_gradients(self.accelerator, self.model.trainable().values())
        found = summed(self.accelerator, [*sums.values(), *self.model.loss_gradient_norms.pop_squares(list(weights))])
        sums, squares = (
            dict(zip(weights, part, strict=True)) for part in (found[: len(weights)], found[len(weights) :])
        )
        if not all(map(math.isfinite, sums.values())):
            raise self.monitor.not_finite(self.step + 1, gathered(self.accelerator, culprits))
        # Each rank's losses are multiplied by the number of ranks: see `total`.
        ranks = self.accelerator.num_processes
        return sums, {f"state_grad_norm/{name}": math.sqrt(square) / ranks for name, square in squares.items()}

    def forward(self, batch: Batch, model: Callable[[Batch], dict[str, Tensor]]) -> dict[str, Tensor]:
        with self.accelerator.autocast():
            return model(batch.to(self.accelerator.device))

    def total(self, losses: dict[str, Tensor], totals: dict[str, float], weights: dict[str, float]) -> Tensor:
        """sum_k w_k L_k / count_k; times ranks, since gradients are averaged over them."""
        terms = [weights[name] * loss / max(totals[name], 1.0) for name, loss in losses.items()]
        return torch.stack(terms).sum() * self.accelerator.num_processes

    def report(self, metrics: MetricsLog | None) -> None:
        stage, within = stage_at(self.config.stages, self.step - 1)
        now = rate(self.config.optim, stage, within)
        values = {
            **self.meter.means(),
            "lr": self.config.optim.lr * now,
            "lr/heads": self.config.optim.heads_lr * now,
            "samples": self.samples,
            "audio_hours": self.audio_s / 3600,
            "peak_memory_gib": max(gathered(self.accelerator, [peak_memory(self.accelerator.device)])),
        }
        self.meter.clear()
        with self.writing():
            if metrics is not None:
                report = Report(self.step, self.config.steps, self.first, stage.name, values)
                metrics.write(report)
                self.on_report(report)

    def evaluate(self, metrics: MetricsLog | None) -> None:
        """On held-out data, where it is due at this step; with the averaged weights, where there are some."""
        due = self.step % self.config.evaluation.every == 0 or self.step == self.config.steps
        if self.held_out is None or not due:
            return
        with self.averaged():
            results = self.held_out.evaluate(lambda batch: self.forward(batch, self.model))
        with self.writing():
            if metrics is not None:
                metrics.write_evaluation(self.step, results.values, results.answers)
                self.log(f"step {self.step}: {results}")

    def averaged(self) -> AbstractContextManager[None]:
        """The model as it is evaluated and exported: with the moving average of its weights, where there is one."""
        return nullcontext() if self.ema is None else self.ema.in_place()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the model."""
        return {**self.model.trainable(), **(self.ema.tensors() if self.ema else {})}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Into the run's folder, by the main rank; what fails there ends all ranks alike."""
        with together(self.accelerator), disk_errors(f"{self.folder.path}: not written", self.checkpoints.kept):
            yield

    def save(self) -> None:
        state = {"meter": self.meter.state_dict(), "samples": self.samples, "audio_s": self.audio_s}
        state |= {"monitor": self.monitor.state_dict(), "think_ids": self.model.block.new_ids}
        optimizer = self.optimizer.state_dict()
        self.checkpoints.save(self.step, self.loader.state_dict(), self.tensors(), optimizer, state)

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, where there is one."""
        checkpoint = self.checkpoints.choose()
        if checkpoint is None:
            torch.manual_seed(self.config.run.seed + self.accelerator.process_index)
            return
        with together(self.accelerator):
            self.load(checkpoint)
        self.log(f"resumed at step {self.step} of {self.config.steps}")

    def load(self, checkpoint: Path) -> None:
        state = self.checkpoints.state(checkpoint)
        self.model.block.check_ids(state["think_ids"], f"{checkpoint}")
        load_weights(checkpoint / "model.safetensors", self.tensors())
        self.optimizer.load_state_dict(load_optimizer(checkpoint))
        for group, now in zip(self.optimizer.param_groups, parameter_groups(self.model, self.config), strict=True):
            group.update({name: value for name, value in now.items() if name != "params"})  # may have been changed
        self.loader.load_state_dict(self.checkpoints.rank_state(checkpoint))
        self.meter.load_state_dict(state["meter"])
        self.monitor.load_state_dict(state["monitor"])
        self.step, self.samples, self.audio_s = state["step"], state["samples"], state["audio_s"]
        restore_random_state(checkpoint, self.accelerator.process_index)
