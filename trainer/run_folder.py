"""A run's folder: what belongs to it, how it is opened again, and how its rows are read.

RUN/config.toml         the whole config
RUN/base.json           the student that it began with: where it was read, and the digest of its weights
RUN/index.json          of the shards it was trained on
RUN/data/               which samples these are: see data/sample_record.py
RUN/metrics.jsonl       one object per logged step
RUN/evaluation.jsonl    one per evaluation: held-out losses and accuracy
RUN/samples.jsonl       one per held-out prompt that was asked there: prompt, answer and truth
RUN/best.json           with run.best: which checkpoint is the best by it, see records/best.py
RUN/evaluations/        by step and name: evaluation.benchmarks, as `coat evaluate` writes them
RUN/tensorboard/        the same numbers
RUN/tracked.json        the run's id with trackers, where there are any
RUN/checkpoints/        see training/checkpointing/checkpoints.py
RUN/student/            at the end: the student (or its LoRA adapter), with processor and think tokens
RUN/heads.safetensors   at the end: the projection heads, which generation does not need
RUN/done.json           written LAST
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from coat.manifests import InputError, RunError, ShardIndex, storage
from coat.manifests.errors import one_line
from coat.trainer.config.resume import changes
from coat.trainer.config.train_config import TrainConfig

METRICS_FILE, EVALUATION_FILE, SAMPLES_FILE = "metrics.jsonl", "evaluation.jsonl", "samples.jsonl"
BEST_FILE, PROCESS_FILE = "best.json", "process.json"
RUN_FILES = (
    "config.toml", "base.json", "index.json", METRICS_FILE, EVALUATION_FILE, SAMPLES_FILE, BEST_FILE, PROCESS_FILE,
    "evaluations", "tensorboard", "wandb", "tracked.json", "data", "checkpoints", "student", "heads.safetensors",
)  # fmt: skip


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.toml"
        self.done_file = path / "done.json"
        self.base_file = path / "base.json"
        self.checkpoints = path / "checkpoints"
        self.student = path / "student"
        self.heads = path / "heads.safetensors"

    @property
    def finished(self) -> bool:
        return self.done_file.exists()

    @property
    def started(self) -> bool:
        return self.finished or any(self.checkpoints.glob("step-*"))

    @property
    def index(self) -> ShardIndex:
        """Of the shards, as it was when the run began; with the experts of sidecars."""
        return ShardIndex.read(str(self.path))

    @property
    def config(self) -> TrainConfig:
        """The run's own."""
        return TrainConfig.read(str(self.config_file))

    def open(self, config: TrainConfig, index: ShardIndex, restart: bool = False, change: bool = False) -> list[str]:
        """Make the folder, or check that it holds this same run: what was changed on purpose is returned.

        InputError where it holds something else.
        """
        if self.config_file.exists() and (restart or not self.started):
            self.clear()  # what never reached a checkpoint is no run: a mistake in its config may be mended
        if not self.config_file.exists():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise InputError(f"{self.path}: not empty, and not a run of coat; choose another --out")
            replace(index, sidecars={}).write(str(self.path))  # with all experts
            storage.write_bytes(str(self.config_file), config.to_toml().encode())
            return []
        changed = changes(self.config, config)
        fixed = [c for c in changed if c.on_resume == "fixed"]
        if fixed or (changed and not change):
            or_change = "" if fixed else ", --change to go on with it"
            raise InputError(
                f"{self.path}: holds a run with another config ({'; '.join(map(str, (fixed or changed)[:3]))}); "
                f"use another --out{or_change}, or --restart to drop it"
            )
        more_patient = self.finished and self.is_more_patient(config)
        if (changed or more_patient) and self.finished:
            self.extend(config, from_anew=bool(changed))
        if changed or more_patient:
            storage.write_bytes(str(self.config_file), config.to_toml().encode())
        return list(map(str, changed))

    def extend(self, config: TrainConfig, from_anew: bool) -> None:
        """A finished run is one no more, where there are more steps to train. InputError where there are none.

        `from_anew`: its patience begins again, since what is trained from here on is something else.
        """
        done = self.done_step
        if config.steps <= done:
            raise InputError(
                f"{self.path}: this run is finished, at step {done}, and nothing is left to train with these changes; "
                "give its stages more steps, or choose another --out"
            )
        best = self.path / BEST_FILE
        if from_anew and best.exists():
            storage.write_bytes(str(best), storage.to_json({**storage.read_json(str(best)), "patience_since": done}))
        self.done_file.unlink()

    @property
    def done_step(self) -> int:
        """The last step of a finished run; less than its stages have where it ended early."""
        return int(storage.read_json(str(self.done_file))["step"])

    def is_more_patient(self, config: TrainConfig) -> bool:
        """Whether a run that `run.patience` ended would have gone on with the patience of `config`."""
        ended_with = storage.read_json(str(self.done_file)).get("patience")
        return ended_with is not None and (config.run.patience is None or config.run.patience > ended_with)

    def check_base(self, source: str, digest: str) -> None:
        """Note which weights the run begins with. InputError where it began with others: what was learnt belongs to
        those.
        """
        if not self.base_file.exists():
            storage.write_bytes(str(self.base_file), storage.to_json({"student": source, "xxh3_128": digest}))
            return
        began = storage.read_json(str(self.base_file))
        if began.get("xxh3_128") != digest:
            raise InputError(
                f"{source}: other weights than those that {self.path} began with ({began.get('student')}); give it "
                "these, as they were, or train anew in another --out"
            )

    def check_shared(self, rank: int) -> None:
        """RunError where a rank does not see what the main one has opened."""
        if not self.config_file.exists():
            raise RunError(f"{self.path}: not seen by rank {rank}; run.out must be a folder that all ranks share")

    def clear(self) -> None:
        """Remove what a run wrote, and nothing else."""
        self.done_file.unlink(missing_ok=True)
        for name in RUN_FILES:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def disk_errors(problem: str, kept: Callable[[], str]) -> Iterator[None]:
    """What the disk does not take is a RunError of one line: `problem`, why, what is `kept`, what to do."""
    try:
        yield
    except (OSError, SafetensorError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else one_line(e)
        raise RunError(f"{problem} ({why}); {kept()}; make room, and the same command goes on from there") from e


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics.jsonl."""
    return read_rows(Path(folder) / METRICS_FILE)


def read_evaluations(folder: str | Path) -> list[dict[str, Any]]:
    """Rows of a run's evaluation.jsonl; none where nothing was evaluated yet."""
    path = Path(folder) / EVALUATION_FILE
    return read_rows(path) if path.exists() else []


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines; a last line that a crash cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
