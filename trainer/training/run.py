"""A run: steps over the shards, with reports, held-out evaluations and checkpoints in its folder."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from coat.manifests import InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.loader import loader_of
from coat.trainer.data.redeal import sum_counts
from coat.trainer.data.resuming import Resuming
from coat.trainer.data.sample_record import RunData
from coat.trainer.generation.run_student import write_student
from coat.trainer.model.batch import Batch
from coat.trainer.model.build import build_model
from coat.trainer.model.experts import experts_of
from coat.trainer.model.saved_weights import load_shards, load_weights
from coat.trainer.ranks import gather_from_ranks, raise_on_all_ranks, result_or_error, sum_over_ranks
from coat.trainer.records.best import BestRecord
from coat.trainer.records.checkpoint_files import WEIGHTS_FILE, is_sharded_checkpoint
from coat.trainer.records.runs import drop_process, note_process
from coat.trainer.run_folder import RunFolder, disk_errors, read_evaluations
from coat.trainer.training.asked_benchmarks import AskedBenchmarks
from coat.trainer.training.checkpointing.checkpoint_tensors import load_moments, load_optimizer, restore_random_state
from coat.trainer.training.checkpointing.checkpoints import Checkpoints
from coat.trainer.training.distributed.full_sharding import is_sharded, whole
from coat.trainer.training.distributed.parallel import fsdp_plugin
from coat.trainer.training.held_out import HeldOut
from coat.trainer.training.reporting.metrics_log import MetricsLog, Report
from coat.trainer.training.reporting.trackers import Trackers
from coat.trainer.training.step.measurements import peak_memory
from coat.trainer.training.step.schedule import stage_at
from coat.trainer.training.step.trainer import Trainer
from coat.trainer.training.step.watchdog import Watchdog
from coat.trainer.training.stopping import stop_signals


@dataclass(frozen=True)
class TrainResult:
    run: Path
    step: int
    finished: bool  # False: stopped by a signal; the same call goes on
    seconds: float  # of this call
    skipped: dict[str, int]  # samples left out by reason, since the run began


class TrainingRun:
    """One process of a run."""

    def __init__(
        self,
        config: TrainConfig,
        data: DataSets,
        folder: RunFolder,
        accelerator: Accelerator,
        on_report: Callable[[Report], None],
        log: Callable[[str], None],
    ) -> None:
        self.config, self.folder, self.accelerator, self.data = config, folder, accelerator, data
        self.on_report, self.log = on_report, log
        self.experts = experts_of(config, data.index)
        rank, ranks = accelerator.process_index, accelerator.num_processes
        if config.student.train and config.student.dtype != "float32" and accelerator.mixed_precision == "no":
            raise InputError(
                f"student.train keeps what it names in float32, which a {config.student.dtype} student computes with "
                "only where run.precision is bf16; set that, or student.dtype=float32"
            )
        with raise_on_all_ranks(accelerator):
            is_sent_weights = fsdp_plugin(accelerator) is not None and not accelerator.is_main_process
            longest_s = RunData(folder.path).block_s
            self.model = build_model(config, self.experts, longest_s, empty=is_sent_weights)
        self.model.student.chat.log = log
        self.checkpoints = Checkpoints(folder.checkpoints, config.run.keep, accelerator, log)
        watchdog = Watchdog(config.run, 2 * data.index.samples * ranks, log, self.checkpoints.kept)
        self.trainer = Trainer(config, self.model, self.experts, accelerator, watchdog)
        collator = Collator(self.model.student, self.model.block, data.index, list(self.experts))
        with raise_on_all_ranks(accelerator):
            self.loader = loader_of(data, collator, rank, ranks, log, pin=accelerator.device.type == "cuda")
        self.held_out: HeldOut | None = None
        if config.evaluation.shards is not None:
            self.held_out = HeldOut(config, self.model, self.experts, accelerator)
        self.asked: AskedBenchmarks | None = None
        if config.evaluation.benchmarks:
            if self.trainer.sharded:
                raise InputError(
                    "evaluation.benchmarks: not while FSDP shards the weights; `coat evaluate --run ... --step N` asks "
                    "any checkpoint"
                )
            with raise_on_all_ranks(accelerator):
                self.asked = AskedBenchmarks(config, self.model, accelerator)
        self.metrics: MetricsLog | None = None  # on the main rank, while it runs
        self.best: BestRecord | None = None  # with run.best, the same on all ranks
        self.first_step = 0  # of this call: above 0 where it resumed

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.trainer.steps_done

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps or self.ended_early

    @property
    def ended_early(self) -> bool:
        """Whether `run.patience` is at its end."""
        patience = self.config.run.patience
        return self.best is not None and patience is not None and self.best.without_improvement >= patience

    def run(self, stop_requested: Callable[[], bool] = lambda: False) -> TrainResult:
        """Train from the last checkpoint to the end, or until a rank is asked to stop; `stop_requested` each step."""
        with self.shared_errors():
            if self.accelerator.is_main_process:
                self.folder.check_base(self.config.student.path, self.model.student.digest)
        self.resume()
        self.model.train()
        start, self.first_step = time.monotonic(), self.step
        with self.shared_errors():
            if self.accelerator.is_main_process:
                trackers = Trackers(self.config, self.folder.path, self.log)
                self.metrics = MetricsLog(self.folder.path, self.step, trackers)
                note_process(self.folder.path)
        self.begin_best()
        batches = iter(self.loader)
        try:
            self.evaluate_if_missed()
            with stop_signals() as signals:
                stop = False
                while not self.finished and not stop:
                    stop = self.timed_step(batches, lambda: bool(signals) or stop_requested())
                    if self.step % self.config.run.log_every == 0 or self.finished:
                        self.report()
                    if self.save_is_due or stop:
                        self.save()
                    if self.finished or not stop:
                        self.evaluate()
        finally:
            batches.close()  # type: ignore[attr-defined]
            if self.metrics is not None:
                self.metrics.close()
                drop_process(self.folder.path)
        if self.finished:
            self.write_student()
        seconds = time.monotonic() - start
        return TrainResult(self.folder.path, self.step, self.finished, seconds, self.skipped())

    def write_student(self) -> None:
        """What the run leaves, with averaged weights where there are some. Sharded ones are gathered, on all ranks."""
        is_main, sharded = self.accelerator.is_main_process, is_sharded(self.model.trainable().values())
        with self.trainer.averaged_weights():
            weights = whole(self.model.student.model.state_dict(), keep=is_main) if sharded else None
            with self.shared_errors():
                if is_main:
                    patience = self.config.run.patience if self.step < self.config.steps else None
                    write_student(self.folder, self.model, self.step, patience, weights)

    def timed_step(self, batches: Iterator[Batch], stop_requested: Callable[[], bool]) -> bool:
        """One step over the next batches; whether to stop behind it."""
        start = time.monotonic()
        loaded = result_or_error(lambda: list(islice(batches, self.config.run.accumulate)))
        waited = time.monotonic() - start
        if isinstance(loaded, Exception):
            stop = self.trainer.step([], stop=stop_requested(), error=loaded)
        else:
            stop = self.trainer.step(loaded, stop=stop_requested())
        self.trainer.meter.add_time(time.monotonic() - start, waited)
        if skipped := self.trainer.watchdog.pop_skipped():  # the same on all ranks
            with self.shared_errors():
                if self.metrics is not None:
                    self.metrics.write_skipped(skipped)
        return stop

    def skipped(self) -> dict[str, int]:
        """Samples left out since the run began, by reason, of all ranks."""
        return dict(sum(map(Counter, gather_from_ranks(self.accelerator, [dict(self.loader.skipped)])), Counter[str]()))

    def given_by_set(self) -> dict[str, float]:
        """`set/<name>/samples`, `audio_hours`, `tokens` and `skipped/<reason>` since the run began, of all ranks."""
        if not self.data.several:
            return {}
        counts = sum_counts(gather_from_ranks(self.accelerator, [dict(self.loader.given)]))
        seconds, hours = "/audio_s", "/audio_hours"
        return {
            f"set/{name.replace(seconds, hours)}": count / 3600 if name.endswith(seconds) else float(count)
            for name, count in sorted(counts.items())
        }

    def report(self) -> None:
        stage, _ = stage_at(self.config.stages, self.step - 1)
        values = {
            **self.trainer.meter.means(),
            **self.trainer.rates(),
            "samples": self.trainer.samples,
            "audio_hours": self.trainer.audio_s / 3600,
            **{f"skipped/{reason}": float(count) for reason, count in sorted(self.skipped().items())},
            **self.given_by_set(),
            **({"skipped_steps": float(steps)} if (steps := self.trainer.watchdog.skipped_steps) else {}),
            "peak_memory_gib": max(gather_from_ranks(self.accelerator, [peak_memory(self.accelerator.device)])),
        }
        self.trainer.meter.clear()
        with self.shared_errors():
            if self.metrics is not None:
                report = Report(self.step, self.config.steps, self.first_step, stage.name, values)
                self.metrics.write(report)
                self.on_report(report)

    def evaluate_if_missed(self) -> None:
        """A run may have been killed between a checkpoint and its evaluation."""
        evaluated = self.metrics is not None and self.metrics.evaluated(self.step)
        if self.step and not sum_over_ranks(self.accelerator, [evaluated])[0]:
            self.evaluate()

    @property
    def evaluation_is_due(self) -> bool:
        return self.held_out_is_due or (self.asked is not None and self.asked.is_due(self.step, self.finished))

    @property
    def held_out_is_due(self) -> bool:
        return self.held_out is not None and (self.step % self.config.evaluation.every == 0 or self.finished)

    @property
    def save_is_due(self) -> bool:
        """Also before each evaluation, where the best is kept: any may be that."""
        may_be_best = self.best is not None and self.evaluation_is_due
        return self.step % self.config.run.save_every == 0 or self.finished or may_be_best

    def evaluate(self) -> None:
        """On held-out data, where it is due at this step; with averaged weights, where there are some."""
        if not self.evaluation_is_due:
            return
        values: dict[str, float] = {}
        answers: list[dict[str, Any]] = []
        lines: list[str] = []
        with self.trainer.averaged_weights():
            if self.held_out is not None and self.held_out_is_due:
                results = self.held_out.evaluate(lambda batch: self.trainer.forward(batch, self.model))
                values, answers, lines = dict(results.values), results.answers, [str(results)]
            if self.asked is not None:
                found, headings = self.asked.evaluate(self.step, self.finished, self.folder.path)
                values, lines = values | found, lines + headings
        with self.shared_errors():
            if self.metrics is not None:
                self.metrics.write_evaluation(self.step, values, answers)
                for line in lines:
                    self.log(f"step {self.step}: {line}")
        self.update_best()

    def begin_best(self) -> None:
        """Go on with the record of the best checkpoint, or begin one."""
        if self.config.run.best is not None:
            with self.shared_errors():
                before = BestRecord.read(self.folder.path) if self.accelerator.is_main_process else None
            before = gather_from_ranks(self.accelerator, [before] if self.accelerator.is_main_process else [])[0]
            self.best = BestRecord.begin(self.config, before, self.step)
            self.update_best()

    def update_best(self) -> None:
        """From what was evaluated until now."""
        if self.best is None:
            return
        now: list[BestRecord] = []
        with self.shared_errors():
            if self.accelerator.is_main_process:
                now = [self.best.over(read_evaluations(self.folder.path))]
                now[0].write(self.folder.path)
                self.checkpoints.also_kept = now[0].step
                self.checkpoints.drop_old(self.step)
        self.best = gather_from_ranks(self.accelerator, now)[0]
        if self.ended_early and self.step < self.config.steps:
            self.log(f"step {self.step}: {self.best}; the run ends here, --change or more run.patience goes on with it")

    @contextmanager
    def shared_errors(self) -> Iterator[None]:
        """For what the main rank writes into the run's folder: what fails there ends all ranks alike."""
        problem = f"{self.folder.path}: not written"
        with raise_on_all_ranks(self.accelerator), disk_errors(problem, self.checkpoints.kept):
            yield

    def save(self) -> None:
        state = {**self.trainer.state_dict(), "think_ids": self.model.block.new_ids}
        weights, optimizer = self.trainer.weights(), self.trainer.optimizer.state_dict()
        self.checkpoints.save(self.step, self.loader.state_dict(), weights, optimizer, state)

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, where there is one."""
        checkpoint = self.checkpoints.choose()
        if checkpoint is None:
            torch.manual_seed(self.config.run.seed + self.accelerator.process_index)
            return
        if is_sharded_checkpoint(checkpoint):
            self.load_shards(checkpoint)
        with raise_on_all_ranks(self.accelerator):
            self.load(checkpoint)
        self.log(f"resumed at step {self.step} of {self.config.steps}")

    def load_shards(self, checkpoint: Path) -> None:
        """Weights and optimizer, of which each rank reads its part; all ranks call it, and fail alike."""
        load_shards(checkpoint, self.trainer.weights())
        self.trainer.load_optimizer(load_moments(checkpoint, self.model.trainable()))

    def load(self, checkpoint: Path) -> None:
        state = self.checkpoints.state(checkpoint)
        self.model.block.check_ids(state["think_ids"], f"{checkpoint}")
        if not is_sharded_checkpoint(checkpoint):
            load_weights(checkpoint / WEIGHTS_FILE, self.trainer.weights())
            self.trainer.load_optimizer(load_optimizer(checkpoint))
        self.trainer.load_state_dict(state)
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        cursors = self.checkpoints.cursors(checkpoint)
        for line in Resuming(self.data, RunData(self.folder.path), cursors, rank, ranks).go_on(self.loader):
            self.log(line)
        if len(cursors) != ranks:
            samples = self.config.data.batch_size * self.config.run.accumulate * ranks
            self.log(f"a step takes {samples} samples with {ranks} rank{'s' * (ranks > 1)}, if none are skipped")
        restore_random_state(checkpoint, rank, hash((self.config.run.seed, self.step, rank)) % 2**63)
