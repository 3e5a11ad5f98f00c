"""Command `runs`: parses, and calls one function."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.options import Json
from coat.cli.output import table

if TYPE_CHECKING:
    from coat.trainer.records.runs import RunSummary


def runs(
    folder: Annotated[str, typer.Argument(help="Folder of runs, or one run.")],
    json_output: Json = False,
) -> None:
    """List the runs of a folder and compare them: state, steps, last figures, what differs in their configs.

    States: running; finished; early (finished by run.patience); stopped (the same command goes on with it).

    Examples:

      coat runs runs

      coat runs runs --json | jq '.runs[] | [.run, .held_out.accuracy]'
    """
    from coat.trainer.records.runs import differing, runs_of

    found = runs_of(folder)
    differences = differing(found)
    if json_output:
        document = {"runs": [run.to_dict() for run in found], "differences": differences}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    show(folder, found, differences)


def show(folder: str, found: "list[RunSummary]", differences: dict[str, list[Any]]) -> None:
    held_out = [name for name in ("ce", "accuracy") if any(name in run.held_out for run in found)]
    rows = [
        [
            run.name,
            run.state,
            f"{run.step} of {run.steps}",
            figure(run.figures.get("loss")),
            figure(run.figures.get("ce")),
        ]
        + [figure(run.held_out.get(name)) for name in held_out]
        + [best_text(run)]
        for run in found
    ]
    columns = ["run", "state", "step", "loss", "ce", *(f"held out: {name}" for name in held_out), "best"]
    table(f"Runs in {folder}", columns, rows)
    readable = [run for run in found if run.config]
    if differences:
        lines = [[key, *map(value_text, values)] for key, values in differences.items()]
        table("What differs", ["key", *(run.name for run in readable)], lines)
    elif len(readable) > 1:
        typer.echo("their configs are the same")
    for run in found:
        if run.problem:
            typer.echo(f"{run.name}: {run.problem}", err=True)


def figure(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}"


def best_text(run: "RunSummary") -> str:
    if run.best is None or run.best.step is None:
        return "-"
    return f"{run.best.figure} {run.best.value:.4g} at {run.best.step}"


def value_text(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
