"""`coat quickstart`: the recipe `coat/recipe/quickstart.toml`, and what to type next."""

import json
from importlib.resources import as_file
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.options import Json
from coat.cli.output import bytes_text, duration_text, table
from coat.cli.whole.run import run_recipe

if TYPE_CHECKING:
    from coat.recipe.running import StageResult

EXAMPLES = 5  # answers that are shown


def quickstart(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder for everything it makes.")] = "runs/quickstart",
    clips: Annotated[int, typer.Option(help="Clips to synthesise.", min=40)] = 600,
    seed: Annotated[int, typer.Option(help="Of the corpus and the student.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value over the training config; repeat.")] = None,
    json_output: Json = False,
) -> None:
    """Run the whole job on a small synthetic corpus: extract, build shards, train, ask.

    Needs no downloads: the experts' weights come inside packages, the student is tiny and learns from scratch. It is a
    recipe as `coat run` takes it, and shows each of its commands; the same command goes on after a kill.

    Example:  coat quickstart --out runs/quickstart
    """
    from coat.cli.whole.commands import grammar_of
    from coat.recipe.grammar import toml_text
    from coat.recipe.reading import read_recipe
    from coat.recipe.running import Choice

    changes = [f"manifests.corpus.clips={clips}", f"train.set={toml_text(set_ or [])}"]
    seeds = ("manifests.corpus.seed", "student.seed", "train.settings.run.seed", "train.settings.data.seed")
    changes += [f"{key}={seed}" for key in seeds]
    with as_file(package_files("coat.recipe") / "quickstart.toml") as file:
        recipe = read_recipe(str(file), out, changes, folder=Path.cwd())
        grammar = grammar_of(context.find_root().command, recipe.folder)
        results, page = run_recipe(recipe, grammar, Choice(), quiet=json_output)
    result = collect(Path(out), results)
    if json_output:
        typer.echo(json.dumps(result, indent=2))
        return
    show(Path(out), result, page)


def collect(root: Path, results: "list[StageResult]") -> dict[str, Any]:
    """What came out, from the files of its stages."""
    from coat.manifests import ShardIndex, storage
    from coat.trainer.evaluation.results import Results
    from coat.trainer.run_folder import read_metrics

    summaries = storage.read_json(str(root / "stages" / "extract.summary.json"))
    index, rows = ShardIndex.read(str(root / "shards")), read_metrics(root / "run")
    first, last = rows[0], rows[-1]
    losses = {k: [first[k], last[k]] for k in first if k in last and (k == "ce" or k.startswith("distill/"))}
    found = Results.read(root / "evaluation").benchmarks["manifest"]
    parts = {"all": found, **found.groups.get("task", {})}
    return {
        "out": str(root),
        "experts": {s["expert"]: {"ok": s["ok"], "rtfx": s["rtfx"], "bytes": s["bytes"]} for s in summaries},
        "shards": {"samples": index.samples, "bytes": index.bytes, "seconds": index.seconds},
        "train": {"steps": storage.read_json(str(root / "run" / "done.json"))["step"], "losses": losses},
        "heldout": {name: of_part(part) for name, part in parts.items()},
        "stages": {r.name: r.seconds for r in results},
        "seconds": sum(r.seconds or 0.0 for r in results if r.outcome == "done"),
    }


def of_part(part: Any) -> dict[str, Any]:
    """By the strict rule."""
    unparsed = (part.unparsed + part.missing + part.empty) / part.rows
    accuracy, chance = part.scores.strict["accuracy"], part.chance or 0.0
    return {"rows": part.rows, "accuracy": accuracy, "chance": chance, "unparsed": unparsed}


def show(root: Path, result: dict[str, Any], page: str) -> None:
    from coat.manifests.corpus.manifest import Manifest
    from coat.trainer.evaluation.predictions import read_predictions

    losses = [[name, f"{a:.3f}", f"{b:.3f}"] for name, (a, b) in result["train"]["losses"].items()]
    table("Losses", ["loss", "first", "last"], losses)
    asked = {u.id: u for u in Manifest.read(str(root / "corpus" / "heldout.jsonl"))}
    answers = list(read_predictions(root / "evaluation").values())[:EXAMPLES]
    examples = [
        [asked[p.id].audio_filepath, asked[p.id].prompt, p.answer or "(none)", asked[p.id].response] for p in answers
    ]
    table("Answers", ["clip", "question", "answered", "truth"], examples)
    held, shards = result["heldout"]["all"], result["shards"]
    rows = [
        ["shards", f"{shards['samples']} samples, {duration_text(shards['seconds'])}, {bytes_text(shards['bytes'])}"],
        ["held-out accuracy", f"{held['accuracy']:.0%}, by chance {held['chance']:.0%}, of {held['rows']} clips"],
        ["every answer, with its audio", str(root / "report.html")],
        ["all that came out", page],
        ["this took", duration_text(result["seconds"])],
    ]
    table("Quickstart", ["what", "came out"], rows)
    first = asked[answers[0].id]
    clip, prompt = root / "corpus" / first.audio_filepath, first.prompt
    typer.echo("Next:")
    for line in (
        f"coat status {root / 'targets'}",
        f'coat generate --run {root / "run"} --audio {clip} --prompt "{prompt}"',
        listen_command(root, first.id),
        f"coat evaluate --run {root / 'run'} --data YOURS.jsonl --out evals/yours",
        f"tensorboard --logdir {root / 'run' / 'tensorboard'}",
        "coat extract --expert pitch --manifest YOURS.jsonl --store targets",
    ):
        typer.echo(f"  {line}")


def listen_command(root: Path, identity: str) -> str:
    """What the block heard in a held-out clip, beside the experts' targets."""
    where = f"--manifest {root / 'corpus' / 'heldout.jsonl'} --store {root / 'targets'} --id {identity}"
    return f"coat listen --run {root / 'run'} {where} --out {root / 'heard.html'}"
