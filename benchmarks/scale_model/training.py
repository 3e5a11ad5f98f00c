"""One run, by coat's own trainer with another loader: decoding anew would cost more than a step."""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from benchmarks.scale_model.arms import Run, config_of
from benchmarks.scale_model.data import Asker, Clips, Drawn, index_of
from benchmarks.scale_model.student import make_student, with_block
from coat.trainer.data.collator import Collator
from coat.trainer.data.data_sets import DataSets
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.run_folder import RunFolder, read_metrics
from coat.trainer.training.run import TrainingRun

KEPT = ("ce", "lr", "grad_norm", "steps_per_s")  # of metrics.jsonl, and of each expert:
KEPT_OF_EXPERTS = ("distill/", "state_grad_norm/", "balance/")


@dataclass(frozen=True)
class Trained:
    model: CoatModel  # in eval mode
    collator: Collator
    facts: dict[str, Any]  # what a result says of the training


Look = Callable[[CoatModel, Collator], None]


def train(run: Run, cache: Path, clips: Clips, before: Look | None = None) -> Trained:
    """Deterministic on one thread: equal runs give equal weights. A taught student is kept in the cache.

    `before` is shown the model as it begins.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        trained = train_in(out, run, student_of(run, cache), cache, clips, before)
        if run.regime == "pretrain":
            once(taught(run, cache), lambda at: shutil.copytree(out / "student", at))
    return trained


def train_in(out: Path, run: Run, student: Path, cache: Path, clips: Clips, before: Look | None) -> Trained:
    config, index = config_of(run, student, cache / "shards", out), index_of(cache)
    folder = RunFolder(out)
    folder.open(config, index)
    training = TrainingRun(
        config, DataSets.of(config.data, [index]), folder, Accelerator(cpu=True), lambda _: None, lambda _: None
    )
    collator = training.loader.collator
    asker, hide_audio = asker_of(run, collator, clips), config.thinking.hide_audio
    training.loader = Drawn(asker, config.data.batch_size, run.seed, hide_audio)  # type: ignore[assignment]
    if before:
        before(training.model.eval(), collator)
    counts = parameters(training.model)
    cpu = time.process_time()
    result = training.run()
    if not result.finished:
        raise SystemExit(f"{run.name}: stopped by a signal; nothing of it is kept")
    cpu = time.process_time() - cpu
    rows = read_metrics(out)
    losses = [{"step": r["step"]} | {k: r[k] for k in r if k in KEPT or k.startswith(KEPT_OF_EXPERTS)} for r in rows]
    facts = {"seconds": round(result.seconds, 1), "cpu_seconds": round(cpu, 1), "parameters": counts, "log": losses}
    return Trained(training.model.eval(), collator, facts)


def asker_of(run: Run, collator: Collator, clips: Clips) -> Asker:
    return Asker(collator, clips, run.questions, run.through_block)


def parameters(model: CoatModel) -> dict[str, int]:
    """Of the student without adapters, of what is trained of it, and of the heads, which are dropped behind it."""
    weights = dict(model.student.model.named_parameters())
    adapters = sum(p.numel() for name, p in weights.items() if "lora_" in name or "trainable_tokens" in name)
    return {
        "student": sum(p.numel() for p in weights.values()) - adapters,
        "trained": sum(p.numel() for name, p in model.trainable().items() if "heads." not in name),
        "heads": sum(p.numel() for heads in model.named_heads().values() for p in heads.parameters()),
    }


def student_of(run: Run, cache: Path) -> Path:
    """What a run starts from: a random student, or a taught one; made where it is not there.

    The block's rows are in all of them, used or not; they are added behind the teaching, as to a real student.
    """
    plain = once(cache / "students" / f"plain-{run.seed}", lambda at: make_student(at, run.seed))
    if run.regime == "pretrain":
        return plain
    source = taught(run, cache) if run.regime == "tuned" else plain
    if not source.exists():
        raise FileNotFoundError(f"{source}: the student of regime `tuned` is not there; run its `pretrain` run first")
    return once(cache / "students" / f"ready-{source.name}", lambda at: with_block(source, at))


def taught(run: Run, cache: Path) -> Path:
    """What a pretrain run leaves, and a tuned one starts from."""
    arm = run.arm if run.regime == "pretrain" else run.taught
    return cache / "students" / f"taught-{arm}-{run.seed}"


def once(target: Path, make: Callable[[Path], object]) -> Path:
    """`make` it beside and rename it, so that it is whole when it is there; another process may have been first."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
            made = Path(folder) / target.name
            make(made)
            try:
                made.rename(target)
            except OSError:
                if not target.exists():
                    raise
    return target
