"""`coat plan-train`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.options import Json, parse_bytes
from coat.cli.output import bytes_text, table
from coat.cli.training.train import Configs, Overrides, quiet, settings_of

if TYPE_CHECKING:
    from coat.trainer.planning.footprint import Footprint


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
    """Predict the parameters and the GPU memory of a training run.

    It needs only the student's config.json: no weights, no GPU, and nothing is written.

    Examples:

      coat plan-train --config configs/qwen2-audio-7b.toml --batch 4 --seconds 30 --tokens 200 --gpu 80GB

      coat plan-train --student config.json --shards ./shards --gpu 24GB
    """
    unused = "unused"  # nothing is written; without shards heads are for five usual experts
    flags = {"run.out": unused, "student.path": student, "data.batch_size": batch}
    flags["data.shards"] = shards or (None if config else unused)
    settings = settings_of(config, flags, set_)
    memory = None if gpu is None else parse_bytes("--gpu", gpu)
    with quiet():
        from coat.trainer.planning.activations import Shape
        from coat.trainer.planning.plan import plan_training

        shape = Shape(settings.data.batch_size, seconds, tokens, min(response or tokens, tokens))
        found = plan_training(settings, shape, shards)
    if json_output:
        typer.echo(json.dumps({**found.to_dict(), **({} if memory is None else verdicts(found, memory))}, indent=2))
        return
    show(found, settings.run.gradient_checkpointing, settings.data.batch_size, gpu, memory)


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
