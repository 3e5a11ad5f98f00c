"""Benchmarks and manifests that are asked beside the training, by `trainer.evaluation`.

RUN/evaluations/step-00000500/NAME/   what `coat evaluate` would write; its figures go into evaluation.jsonl too
"""

import shutil
from collections import Counter
from pathlib import Path

from accelerate import Accelerator

from coat.manifests import InputError
from coat.trainer.config.sections import BenchmarkConfig
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.evaluation.asking.student import StudentAsker, subject_of
from coat.trainer.evaluation.data import read_rows
from coat.trainer.evaluation.evaluation import Ranks, evaluate
from coat.trainer.evaluation.registry import find_benchmark
from coat.trainer.evaluation.results import Results
from coat.trainer.evaluation.settings import EvaluationSettings
from coat.trainer.generation.generate import Trained
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.training.held_out import evaluation_mode

FOLDER = "evaluations"  # in the run's


class AskedBenchmarks:
    """All ranks share the rows. InputError: data or a template that is none, before the first step."""

    def __init__(self, config: TrainConfig, model: CoatModel, accelerator: Accelerator) -> None:
        self.config, self.model, self.accelerator = config, model, accelerator
        self.names = names_of(config.evaluation.benchmarks)
        for one in config.evaluation.benchmarks:
            benchmark = find_benchmark(one.name)
            benchmark.template_named(one.template)
            read_rows(benchmark, one.data, one.audio_root)

    def is_due(self, step: int, finished: bool) -> bool:
        return bool(self.due(step, finished))

    def due(self, step: int, finished: bool) -> dict[str, BenchmarkConfig]:
        """By name."""
        every = self.config.evaluation.every
        return {
            name: one
            for name, one in zip(self.names, self.config.evaluation.benchmarks, strict=True)
            if finished or step % (one.every or every) == 0
        }

    def evaluate(self, step: int, finished: bool, run: Path) -> tuple[dict[str, float], list[str]]:
        """Figures (NAME/accuracy, ...) and a line each, of those that are due; on the main rank, nothing elsewhere."""
        values: dict[str, float] = {}
        lines: list[str] = []
        compiled = self.config.run.compile is not None
        with evaluation_mode(self.model, self.accelerator.device, compiled):
            for name, one in self.due(step, finished).items():
                found = self.ask(name, one, step, run / FOLDER / f"step-{step:08d}" / name)
                if found is not None:
                    values |= figures(name, found)
                    lines.append(found.heading)
        return values, lines

    def ask(self, name: str, one: BenchmarkConfig, step: int, out: Path) -> Results | None:
        """Anew: what a run of before has left there is of other weights."""
        ranks = Ranks(
            self.accelerator.process_index, self.accelerator.num_processes, self.accelerator.wait_for_everyone
        )
        if ranks.is_main:
            shutil.rmtree(out, ignore_errors=True)
        trained = Trained(self.model.student, self.model.block, self.config)
        subject = subject_of(trained, "run", self.config.run.out, step)
        return evaluate(
            settings_of(name, one, self.config), out, lambda _: StudentAsker(trained, subject),
            ranks=ranks, workers=max(1, self.config.data.workers),
        )  # fmt: skip


def settings_of(name: str, one: BenchmarkConfig, config: TrainConfig) -> EvaluationSettings:
    """As `coat evaluate` has them; batches are no larger than those of the training."""
    settings = {
        "benchmarks": [
            {"name": one.name, "label": name, "data": one.data, "audio_root": one.audio_root, "template": one.template}
        ],
        "subject": {"kind": "run", "sources": [config.run.out]},
        "rows": one.rows, "seed": one.seed, "max_new_tokens": one.max_new_tokens, "guard": one.guard, "cost": 0,
        "batch_size": config.data.batch_size, "transcribe_prompt": config.data.transcribe_prompt,
    }  # fmt: skip
    if config.data.batch_tokens is not None:
        settings["batch_tokens"] = config.data.batch_tokens
    return EvaluationSettings.from_dict(settings, "evaluation.benchmarks")


def names_of(benchmarks: tuple[BenchmarkConfig, ...]) -> list[str]:
    """Of their figures: the benchmark's; a manifest's own, by its file."""
    names = [Path(one.data).name.split(".")[0] if one.name == "manifest" else one.name for one in benchmarks]
    names = [name.rsplit(":", 1)[-1] for name in names]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"evaluation.benchmarks: {twice[0]} twice; give each manifest a file name of its own")
    return names


def figures(name: str, results: Results) -> dict[str, float]:
    """For evaluation.jsonl and trackers: NAME/<metric> by the strict rule, NAME/official/<metric>, and the guard's."""
    (found,) = results.benchmarks.values()
    values = {f"{name}/{metric}": value for metric, value in found.scores.strict.items()}
    values |= {f"{name}/official/{metric}": value for metric, value in found.scores.official.items()}
    values |= {f"{name}/unparsed": (found.unparsed + found.missing + found.empty) / found.rows}
    if results.hearing is not None:
        values |= {f"{name}/hears": float(results.hearing.hears)}
    return values
