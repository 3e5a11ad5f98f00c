"""Command `run`: parses, and calls one function."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.options import Json
from coat.cli.output import bytes_text, duration_text, table

if TYPE_CHECKING:
    from coat.recipe.grammar import Grammar
    from coat.recipe.reading import Recipe
    from coat.recipe.running import Choice, Job, StageResult


def run(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe: a TOML file. See docs/recipes.md.")],
    out: Annotated[str | None, typer.Option(help="Folder for all that it makes, in place of the recipe's out.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over the recipe; repeat.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Begin with this stage; those before it are taken as they are.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="End after this stage.")] = None,
    again: Annotated[
        list[str] | None,
        typer.Option(
            help="Make this stage anew, and what comes of it. What is there is moved aside, never removed; repeat."
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster (auto, or host:port) for stages that can use one; it must see the recipe's paths."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, with hours, bytes and cost. Writes nothing.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Run the whole job of one file: manifests, experts, shards, training, evaluation, export.

    Each stage is a command of coat, and is shown. A stage is skipped while what it reads is unchanged; after a kill the
    same command goes on where it stopped. At the end OUT/index.html links what came out. Stages are named like their
    sections: shards is all of shards.train, shards.valid.

    Examples:

      coat run recipe.toml --dry-run

      coat run recipe.toml

      coat run recipe.toml --until shards --ray-address auto

      coat run recipe.toml --from train --set train.settings.optim.lr=2e-4 --out runs/b

      coat run recipe.toml --again train
    """
    from coat.cli.whole.commands import grammar_of
    from coat.recipe.reading import read_recipe
    from coat.recipe.running import Choice

    read = read_recipe(recipe, out, set_ or [])
    choice = Choice(from_, until, tuple(again or ()))
    grammar = grammar_of(context.find_root().command, read.folder)
    if dry_run:
        forecast(read, grammar, choice, ray_address, json_output)
        return
    results, page = run_recipe(read, grammar, choice, ray_address, json_output)
    if json_output:
        typer.echo(
            json.dumps({"recipe": recipe, "out": str(read.out), "page": page, "stages": documents(results)}, indent=2)
        )
        return
    show(results, page)


def open_job(
    recipe: "Recipe", grammar: "Grammar", choice: "Choice", ray_address: str | None, quiet: bool
) -> "tuple[Job, dict[str, str]]":
    """InputError, one line: a mistake in the recipe, or in an option of one of its stages."""
    from coat.manifests.errors import InputError
    from coat.recipe.building_students import build_stages
    from coat.recipe.running import Job

    stages, left_out = build_stages(recipe, grammar, ray_address)
    for stage in stages:
        if wrong := grammar.check(stage.words({})):
            raise InputError(f"{recipe.label}: {stage.name}: {wrong}")
    return Job(recipe, stages, choice, say, quiet), left_out


def run_recipe(
    recipe: "Recipe", grammar: "Grammar", choice: "Choice", ray_address: str | None = None, quiet: bool = False
) -> "tuple[list[StageResult], str]":
    """All stages that are not done; what became of them, and the page."""
    from coat.recipe.page import write_page
    from coat.recipe.running import StageFailed

    job, left_out = open_job(recipe, grammar, choice, ray_address, quiet)
    for name, reason in left_out.items():
        say(f"without {name}: {reason}", False)
    job.check()
    try:
        results = job.run()
    except StageFailed as e:
        typer.echo(f"error: {e}", err=True)
        raise typer.Exit(e.status if 0 < e.status < 128 else 1) from e
    return results, write_page(job.notes, job.stages, results)


def say(line: str, bold: bool) -> None:
    typer.secho(line, err=True, bold=bold)


def documents(results: "Sequence[StageResult]") -> list[dict[str, Any]]:
    return [asdict(result) for result in results]


def show(results: "Sequence[StageResult]", page: str) -> None:
    rows = [[r.name, r.outcome, "-" if r.seconds is None else duration_text(r.seconds)] for r in results]
    table("Stages", ["stage", "now", "its time"], rows)
    typer.echo(f"All that came out: {page}")


def forecast(recipe: "Recipe", grammar: "Grammar", choice: "Choice", ray_address: str | None, as_json: bool) -> None:
    """What would be done. Nothing is written, but what a command that looks keeps of the hub."""
    from coat.cli.whole.forecast import forecast_job, total_of

    job, left_out = open_job(recipe, grammar, choice, ray_address, True)
    found = forecast_job(job, grammar)
    whole = total_of(found)
    if as_json:
        typer.echo(
            json.dumps(
                {"out": str(recipe.out), "stages": [asdict(f) for f in found], "total": whole, "left_out": left_out},
                indent=2,
            )
        )
        return
    rows = [[f.name, f.state, *cells(asdict(f))] for f in found]
    rows.append(["all that is known", "", *cells(whole)])
    columns = ["stage", "state", "hours of audio", "bytes", "time", "cost"]
    table(f"{recipe.title}, in {recipe.out}", columns, rows)
    for name, reason in left_out.items():
        typer.echo(f"without {name}: {reason}")
    if held := job.held():
        typer.echo(held)
    for f in found:
        typer.echo("\n  ".join([f"{f.name}:  {f.command}", *f.notes]))


def cells(figures: dict[str, Any]) -> list[str]:
    hours, size, seconds, cost = (figures[key] for key in ("hours", "bytes", "seconds", "cost"))
    return [
        "-" if hours is None else f"{hours:,.2f}",
        "-" if size is None else bytes_text(size),
        "-" if seconds is None else duration_text(seconds),
        "-" if cost is None else f"{cost:,.2f}",
    ]
