"""`coat report`: parses, and calls one function."""

import json
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from coat.cli.options import Json, parse_bytes
from coat.cli.output import bytes_text


def report(
    evaluations: Annotated[list[str], typer.Argument(metavar="E...", help="Folders of coat evaluate.")],
    out: Annotated[str | None, typer.Option(help="HTML page to write: it needs no network.")] = None,
    markdown: Annotated[str | None, typer.Option(help="Tables to write as Markdown, for a paper.")] = None,
    audio: Annotated[
        Literal["embed", "beside", "none"],
        typer.Option(help="In the page, as far as --audio-size goes; in files beside it, all of them; or not at all."),
    ] = "embed",
    audio_size: Annotated[str, typer.Option(help="Of embedded audio; changed and wrong rows come first.")] = "24MB",
    json_output: Json = False,
) -> None:
    """Make one page of evaluations: scores with intervals, baselines and published figures; below them every row.

    Rows are filtered by group, right, wrong, unparsed, changed between two runs; each has its audio, the prompt as it
    was sent, the raw answer, and why it was scored so.

    Examples:

      coat report evals/base evals/coat --out report.html

      coat report evals/coat --markdown table.md
    """
    from coat.cli.progress import progress
    from coat.manifests.errors import InputError
    from coat.trainer.evaluation.reports.report import write_markdown, write_report

    if not (out or markdown):
        raise InputError("nothing to write: give --out report.html, --markdown table.md, or both")
    written = []
    if out:
        budget = parse_bytes("--audio-size", audio_size)
        with progress(None, "clips", "audio", json_output or audio == "none") as advance:
            written.append(write_report(evaluations, out, audio, budget, advance))
    if markdown:
        written.append(write_markdown(evaluations, markdown))
    if json_output:
        typer.echo(json.dumps({"written": [asdict(one) for one in written]}, indent=2))
        return
    for one in written:
        typer.echo(f"{one.path}: {bytes_text(one.bytes)}, {one.rows:,} rows")
        if one.silent:
            typer.echo(f"{one.silent:,} clips are not in it; --audio beside writes all of them to files", err=True)
