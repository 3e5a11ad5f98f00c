"""`coat benchmarks` lists the benchmarks of `coat evaluate`; `coat benchmark import` makes a manifest of official
data."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.data.manifest import bad_rows, report, to_json
from coat.cli.options import AllowHttp, Json
from coat.cli.output import table

if TYPE_CHECKING:
    from coat.trainer.evaluation.benchmark import Benchmark

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Make manifests of benchmarks' official data.")


def benchmarks(
    data: Annotated[
        str, typer.Option(help="Folder to look in for what is here: NAME.jsonl, as `coat benchmark import` writes it.")
    ] = ".",
    json: Json = False,
) -> None:
    """List benchmarks: rows, hours, licence, where the data comes from, what is here.

    Examples:

      coat benchmarks --data data

      coat benchmarks --json
    """
    from coat.trainer.evaluation.registry import benchmark_names, find_benchmark

    found = [describe(name, find_benchmark(name), Path(data)) for name in benchmark_names()]
    if json:
        typer.echo(to_json({"benchmarks": found}))
        return
    columns = ["name", "version", "rows", "hours", "metric", "licence", "source", "here"]
    lines = [
        [
            b["name"], b["version"], f"{b['rows']:,}" if b["rows"] else "-", f"{b['hours']:g}" if b["hours"] else "-",
            b["metrics"][0], b["licence"], b["hub_id"] or b["source"], here_text(b["here"]),
        ]
        for b in found
    ]  # fmt: skip
    table("Benchmarks", columns, lines)
    for b in found:
        if b["note"]:
            typer.echo(f"{b['name']}: {b['note']}")


def describe(name: str, benchmark: "Benchmark", folder: Path) -> dict[str, Any]:
    return {
        "name": name,
        "version": benchmark.version,
        "rows": benchmark.rows or None,
        "hours": benchmark.hours or None,
        "licence": benchmark.licence,
        "source": benchmark.source.url,
        "revision": benchmark.source.revision,
        "hub_id": benchmark.hub_id or None,
        "metrics": list(benchmark.metrics),
        "templates": [template.name for template in benchmark.templates],
        "groups": list(benchmark.groups),
        "published": [asdict(figure) for figure in benchmark.published],
        "note": benchmark.note or None,
        "here": here(folder / f"{name}.jsonl"),
    }


def here(path: Path) -> dict[str, Any] | None:
    """The manifest that is there, with its rows and hours. None: there is none."""
    from coat.manifests import Manifest

    if not path.is_file():
        return None
    manifest = Manifest.read(str(path), spans=True)
    return {"path": str(path), "rows": len(manifest), "hours": round(manifest.seconds / 3600, 2)}


def here_text(found: dict[str, Any] | None) -> str:
    return f"{found['rows']:,} rows, {found['hours']:g} h: {found['path']}" if found else "-"


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Of the benchmark, from `coat benchmarks`.")],
    out: Annotated[str, typer.Argument(help="The manifest to write, such as data/mmau.jsonl.")],
    source: Annotated[
        str, typer.Option("--from", help="What was downloaded: file or folder; or the id of a data set on the hub.")
    ],
    audio_root: Annotated[
        str | None, typer.Option(help="What the records' audio paths count from; else the folder of --from.")
    ] = None,
    probe: Annotated[bool, typer.Option(help="Read durations from the audio's headers.")] = True,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad records out, instead of writing nothing.")
    ] = False,
    allow_http: AllowHttp = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Make a manifest of a benchmark's official data: JSON, JSONL, Parquet, folders.

    What is left out of a record that says how its answer is found (MMAR's `thinking`) does not get into the manifest.

    Examples:

      coat benchmark import mmau --from mmau-test-mini.json --audio-root mmau data/mmau.jsonl

      coat benchmark import librispeech --from LibriSpeech/test-clean data/librispeech.jsonl

      coat benchmark import alpaca-audio --from alpaca_audio_test/ data/alpaca-audio.jsonl
    """
    from coat.cli.progress import progress
    from coat.trainer.evaluation.importing import import_benchmark
    from coat.trainer.evaluation.registry import find_benchmark

    remedy = f"{out} is not written; correct the records, or leave them out: --skip-bad"
    benchmark = find_benchmark(name)
    with bad_rows(json, remedy), progress(None, "rows", "importing", quiet or json) as advance:
        done = import_benchmark(
            benchmark, source, out, audio_root=audio_root, read_headers=probe, skip_bad=skip_bad, advance=advance
        )
    expected = benchmark.rows or None
    result = {"path": out, "benchmark": name, "rows": done.rows, "seconds": done.seconds, "expected_rows": expected}
    report(done.problems, json, result)
    if json:
        return
    left_out = f", {len(done.problems)} records left out" if done.problems else ""
    of = f" of {expected:,}" if expected and expected != done.rows else ""
    typer.echo(
        f"{out}: {done.rows:,}{of} rows, {done.seconds / 3600:.2f} h, {benchmark.name} {benchmark.version}{left_out}"
    )
