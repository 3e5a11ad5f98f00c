"""Command `export`: parses, and calls one function."""

import json
from typing import Annotated, Literal

import typer

from coat.cli.options import RunStep
from coat.cli.output import bytes_text
from coat.cli.training.train import quiet


def export(
    run: Annotated[str, typer.Option(help="Folder of a run.")],
    out: Annotated[str, typer.Option(help="Folder to write; it must be empty.")],
    step: RunStep = None,
    merged: Annotated[bool, typer.Option("--merged", help="The whole model, the adapter merged into it.")] = False,
    target: Annotated[
        Literal["transformers", "vllm", "sglang"] | None,
        typer.Option("--for", help="Who serves it: its files and limits. See docs/serving.md."),
    ] = None,
    positions: Annotated[
        int | None, typer.Option(min=1, help="Think positions, where the run's follow the audio (thinking.rate_hz).")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Hub id of the base model, where the run read it from a folder.")
    ] = None,
    evaluation: Annotated[
        list[str] | None, typer.Option(help="Folder of `coat evaluate` whose results the model card takes; repeat.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the folder's name.")] = False,
) -> None:
    """Export a trained student, so that it can be served without coat.

    The thinking block is in the exported chat template.

    With --for, the files are those that the server reads (transformers: of 4.57 and 5 alike), and what it can't do is
    refused; vLLM and SGLang take whole models alone. Then ask both with `coat serve-check`.

    Examples:

      coat export --run runs/a --out exported

      coat export --run runs/a --out exported --merged --for vllm

      coat export --run runs/a --step best --out exported

      coat export --run runs/a --out exported --merged --base Qwen/Qwen2-Audio-7B-Instruct

      coat export --run runs/a --out exported --evaluation evals/a
    """
    with quiet():
        from coat.trainer.evaluation.reports.card import card_results
        from coat.trainer.export.export import export_run
        from coat.trainer.records.checkpoint_files import parse_step

        results = card_results(evaluation or [], run)
        made = export_run(
            run, out, step=parse_step(step), merged=merged, target=target, positions=positions, base=base,
            results=results,
        )  # fmt: skip
    row = {"out": out, "kind": made.kind, "base": made.base, "bytes": made.bytes, "positions": made.positions}
    row |= {"step": made.step, "for": made.target}
    typer.echo(json.dumps(row, ensure_ascii=False) if as_json else out)
    if not as_json:
        size = bytes_text(made.bytes)
        whom = f" for {made.target}" if made.target else ""
        line = f"{made.kind} of step {made.step}{whom}, {size}, {made.positions} think positions in its template"
        typer.echo(line, err=True)
