"""Commands `train` and `tiny-student`. They parse, and call one function each."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.progress import progress
from coat.cli.telemetry import allow

if TYPE_CHECKING:
    from coat.trainer.config.train_config import TrainConfig
    from coat.trainer.training.reporting.metrics_log import Report


Configs = Annotated[
    list[str] | None, typer.Option("--config", help="TOML of the run (configs/); repeat: later over earlier.")
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="key=value over the config; repeat.")]
STUDENT_HELP = "Hub id or folder of the student (student.path)."
SHARDS_HELP = "Folder or URL that build-shards wrote (data.shards)."


def settings_of(config: list[str] | None, flags: Mapping[str, Any], set_: list[str] | None) -> "TrainConfig":
    """The config, the flags that were given (by key) over it, and `--set` over these."""
    from coat.trainer.config.train_config import TrainConfig

    from_flags = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None]
    return TrainConfig.read(config, [*from_flags, *(set_ or [])])


def train(
    config: Configs = None,
    student: Annotated[str | None, typer.Option(help=STUDENT_HELP)] = None,
    shards: Annotated[str | None, typer.Option(help=SHARDS_HELP)] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run (run.out).")] = None,
    track: Annotated[
        list[str] | None, typer.Option(help="Log to wandb, trackio or mlflow as well (run.trackers); repeat.")
    ] = None,
    set_: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on with the run in --out, or drop it and begin anew.")
    ] = True,
    change: Annotated[
        bool,
        typer.Option(
            "--change", help="Go on though optim, losses, stages, run.precision or the data differ from before."
        ),
    ] = False,
    overfit_one_batch: Annotated[
        bool,
        typer.Option("--overfit-one-batch", help="Only test whether the first batch can be learnt by heart."),
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="Train on this Ray cluster (auto, or host:port), which sees --out and --shards.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Ranks there.", min=1)] = 1,
    gpus_per_worker: Annotated[float, typer.Option(help="GPUs of a rank there.", min=0.0)] = 0.0,
    cpus_per_worker: Annotated[float, typer.Option(help="CPUs of a rank there.", min=0.1)] = 1.0,
    max_failures: Annotated[int, typer.Option(help="How often lost workers there are started anew.", min=0)] = 3,
) -> None:
    """Train a student with a thinking block. The same command resumes a run.

    Examples:

      coat train --config configs/qwen2-audio-7b.toml --shards s3://bucket/shards --out runs/a

      coat train --student ./student --shards ./shards --out runs/b --set optim.lr=2e-4 --set stages.0.steps=500

      coat train --config train.toml --set run.best=accuracy --set run.patience=5

      coat train --config train.toml --set lora.dora=true --set 'student.train=["projector"]'

      coat train --config train.toml --overfit-one-batch

      accelerate launch -m coat train --config configs/qwen2-audio-7b.toml --config configs/profiles/8x80gb.toml

      coat train --config train.toml --ray-address auto --workers 8 --gpus-per-worker 1
    """
    if overfit_one_batch and out is None:
        out = "unused"  # nothing is written
    flags = {"student.path": student, "data.shards": shards, "run.out": out, "run.trackers": track}
    settings = settings_of(config, flags, set_)
    if overfit_one_batch:
        with quiet():
            from coat.trainer.planning.overfit import overfit, verdict

            typer.echo(verdict(overfit(settings, log=say)))
        return
    if "wandb" in settings.run.trackers:
        allow("WANDB_MODE")
    with quiet(), progress_lines() as show:
        options = {"restart": not resume, "change": change, "on_report": show, "log": say}
        if ray_address is None:
            from coat.trainer.training.train import train as run_training

            result = run_training(settings, **options)
        else:
            from coat.cli.on_ray.ranks import Workers
            from coat.cli.on_ray.train import train_on_ray

            where = Workers(
                address=ray_address, count=workers, gpus=gpus_per_worker, cpus=cpus_per_worker, retries=max_failures
            )
            result = train_on_ray(settings, where, **options)
    if is_main_process():
        for reason, count in result.skipped.items():
            say(f"skipped {count} samples: {reason}")
        if result.finished:
            say(f"finished: {result.run} after {result.seconds:.0f} s")
        else:
            say(f"stopped at step {result.step} of {settings.steps}; the same command goes on from there")
    if not result.finished:
        raise typer.Exit(130)


def tiny_student(
    name: Annotated[str, typer.Argument(help="qwen2-audio, qwen2.5-omni, qwen3-omni or audio-flamingo-3")],
    out: Annotated[str, typer.Argument(help="Folder to write; it must be empty.")],
    hidden: Annotated[int, typer.Option(min=8, help="Dim of audio tower and language model.")] = 32,
    text_layers: Annotated[int, typer.Option(min=1)] = 2,
    audio_layers: Annotated[int, typer.Option(min=1)] = 1,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 2,
    seconds: Annotated[int, typer.Option(min=1, help="Longest audio it hears.")] = 3,
    weights_std: Annotated[
        float, typer.Option(help="Standard deviation of its random weights; near 1 / sqrt(hidden) it learns faster.")
    ] = 0.02,
    words: Annotated[
        str | None, typer.Option(help="Manifest whose texts' words become tokens; without it every byte is one.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Create a tiny random student, without download: for tests and a first run.

    Example:

      coat tiny-student qwen2-audio ./student

      coat tiny-student qwen2-audio ./student --hidden 64 --heads 4 --weights-std 0.1 --words corpus.jsonl
    """
    with quiet():
        from coat.manifests.corpus.manifest import Manifest
        from coat.trainer.tiny_students.make import make_tiny_student, texts_of

        folder = make_tiny_student(
            out, name=name, hidden=hidden, text_layers=text_layers, audio_layers=audio_layers, heads=heads,
            seconds=seconds, weights_std=weights_std, texts=texts_of(Manifest.read(words)) if words else (), seed=seed,
        )  # fmt: skip
    typer.echo(str(folder))


def say(line: str) -> None:
    typer.echo(line, err=True)


def is_main_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own bars and notes off stderr: ours say what is done."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    for name in ("accelerate", "bitsandbytes"):  # the latter misses a package that it can do without
        logging.getLogger(name).setLevel(logging.ERROR)
    yield


@contextmanager
def progress_lines(quiet: bool = False) -> Iterator[Callable[["Report"], None]]:
    """A function that shows a Report through the progress helper of all commands."""
    with progress(None, "steps", "train", quiet=quiet) as advance:
        shown: int | None = None  # step of the last report

        def show(report: "Report") -> None:
            nonlocal shown
            # A resumed run counts its own steps alone, so that rate and time left are true.
            done = report.step - (report.first if shown is None else shown)
            shown = report.step
            advance(done, total=report.steps - report.first, note=describe(report))

        yield show


def describe(report: "Report") -> str:
    """Stage, losses and speed, in one line."""
    values = report.values
    names = [n for n in ("loss", "ce") if n in values] + [n for n in values if n.startswith("distill/")]
    losses = " ".join(f"{n.removeprefix('distill/')} {values[n]:.3f}" for n in names)
    since = f" (went on at step {report.first})" if report.first else ""
    return f"{report.stage}{since}: {losses}, {values['samples_per_s']:.1f} samples/s"
