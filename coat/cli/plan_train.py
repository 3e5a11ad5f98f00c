"""`coat plan-train`."""

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.extract import Json
from coat.cli.output import bytes_text, table
from coat.cli.train import Configs, Overrides, quiet, settings_of

if TYPE_CHECKING:
    from coat.trainer.planning.footprint import Footprint

UNITS = {"": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def plan_train(
    student: Annotated[
        str | None, typer.Option(help="Hub id, folder, or a config.json alone (student.path): no weights are loaded.")
    ] = None,
    config: Configs = None,
    shards: Annotated[
        str | None, typer.Option(help="Shards whose experts the heads are for. Default: five usual experts.")
    ] = None,
    set_: Overrides = None,
    batch: Annotated[
        int | None, typer.Option(help="Samples of one forward pass (data.batch_size).", min=1, show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="Audio of a sample.", min=0.1)] = 30.0,
    tokens: Annotated[int, typer.Option(help="Text of a sample: prompt and response.", min=2)] = 128,
    response: Annotated[
        int | None, typer.Option(help="Of these, the response's. Default: all, which is the most.", min=1)
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="Memory of a GPU, to tell whether it fits: 80GB, 24GiB.")] = None,
    json_output: Json = False,
) -> None:
    """Say what a training run takes: parameters, what is trained, and memory by part, for one GPU.

    From the student's config alone, on the meta device: nothing is downloaded but that, and nothing is written.

    Examples:

      coat plan-train --config configs/qwen2-audio-7b.toml --batch 4 --seconds 30 --tokens 200 --gpu 80GB

      coat plan-train --student config.json --shards ./shards --gpu 24GB
    """
    unused = "unused"  # nothing is written; without shards heads are for five usual experts
    flags = {"run.out": unused, "student.path": student, "data.batch_size": batch}
    flags["data.shards"] = shards or (None if config else unused)
    settings = settings_of(config, flags, set_)
    memory = None if gpu is None else bytes_of(gpu)
    with quiet():
        from coat.trainer.planning.footprint import Shape
        from coat.trainer.planning.plan import plan_training

        shape = Shape(settings.data.batch_size, seconds, tokens, min(response or tokens, tokens))
        found = plan_training(settings, shape, shards)
    if json_output:
        typer.echo(json.dumps({**found.to_dict(), **({} if memory is None else verdicts(found, memory))}, indent=2))
        return
    show(found, settings.run.gradient_checkpointing, settings.data.batch_size, gpu, memory)


def bytes_of(text: str) -> float:
    """`80GB`, `24GiB`, `512 MB`. InputError otherwise."""
    from coat.manifests.errors import InputError

    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", text.lower())
    if not found or found[2] not in UNITS or float(found[1]) <= 0:
        raise InputError(f"--gpu {text}: expected a size such as 80GB or 24GiB")
    return float(found[1]) * UNITS[found[2]]


def verdicts(found: "Footprint", memory: float) -> dict:
    fits = {
        name: {"without_experts": found.fits(memory, on), "with_online_experts": found.fits(memory, on, True)}
        for name, on in (("no_checkpointing", False), ("gradient_checkpointing", True))
    }
    return {"gpu": memory, "fits": fits}


def show(found: "Footprint", checkpointing: bool, batch: int, gpu: str | None, memory: float | None) -> None:
    rows = [[p.name, f"{p.parameters:,}", f"{p.trainable:,}"] for p in found.parts]
    rows.append(["all", f"{found.parameters:,}", f"{found.trainable:,}"])
    table("Parameters", ["part", "parameters", "trained"], rows)
    kept = sum(found.activations.values())
    lines = [
        ["weights", found.weights],
        ["gradients", found.gradients],
        ["optimizer", found.optimizer],
        *([f"activations: {name}", size] for name, size in found.activations.items()),
        ["activations: all", kept],
        ["activations: all, with gradient checkpointing", found.checkpointed],
        ["working memory", found.working],
        ["five online experts would add: weights", found.online_weights],
        ["five online experts would add: activations", found.online_activations],
    ]
    title = f"Memory: {batch} samples of {found.positions} positions, {found.think_rows} think rows"
    table(title, ["part", "bytes"], [[name, bytes_text(size)] for name, size in lines])
    totals = []
    for on, how in ((False, "without gradient checkpointing"), (True, "with gradient checkpointing")):
        for online in (False, True):
            size = found.total(on, online)
            row = [how + (", experts online" if online else "") + (" *" if on == checkpointing and not online else "")]
            row.append(bytes_text(size))
            totals.append([*row, *([] if memory is None else ["yes" if found.fits(memory, on, online) else "no"])])
    table("In all (* as configured)", ["run", "bytes", *([] if memory is None else [f"fits {gpu}"])], totals)
