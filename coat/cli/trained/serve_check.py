"""Command `serve-check`: parses, and calls one function."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.options import AllowHttp, Json, RunStep
from coat.cli.output import table
from coat.cli.progress import progress
from coat.cli.training.train import quiet, say

if TYPE_CHECKING:
    from coat.trainer.serving.check import Check, Row

KEY_VARIABLE = "OPENAI_API_KEY"
SHOWN = 60  # characters of a prompt


def serve_check(
    url: Annotated[str, typer.Argument(help="The server's API: http://host:8000/v1.")],
    run: Annotated[str, typer.Option(help="The run whose export it serves.")],
    step: RunStep = None,
    manifest: Annotated[
        str | None, typer.Option(help="Ask these rows. Default: the run's held-out shards, or sounds made here.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="The first so many rows.")] = 20,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 32,
    margin: Annotated[
        float,
        typer.Option(min=0.0, help="Pass over differences where the run itself held both tokens alike, by these nats."),
    ] = 0.0,
    positions: Annotated[
        int | None, typer.Option(min=1, help="As given to `coat export`, where the block follows the audio.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of the server, where it has several.")] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 4,
    key_variable: Annotated[str, typer.Option(help="Environment variable with the server's key.")] = KEY_VARIABLE,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that the server has for an answer.")] = 600.0,
    allow_http: AllowHttp = False,
    json_output: Json = False,
) -> None:
    """Ask a running server and the run the same things, and say where they differ.

    Both hear the same 16 bits, at the student's rate, and answer greedily. vLLM tells its tokens, and its prompt's:
    these are compared; of other servers the words. Exit code 1: they differ.

    Examples:

      coat serve-check http://localhost:8000/v1 --run runs/a

      coat serve-check http://localhost:8000/v1 --run runs/a --manifest heldout.jsonl --rows 100 --json

      coat serve-check http://localhost:8000/v1 --run runs/a --margin 0.1   # a server in bfloat16
    """
    with quiet():
        from coat.trainer.evaluation.asking.chat import ChatClient
        from coat.trainer.export.export import fixed_block
        from coat.trainer.generation.generate import Trained
        from coat.trainer.generation.run_student import load_run
        from coat.trainer.records.checkpoint_files import parse_step
        from coat.trainer.serving.check import check, server_url
        from coat.trainer.serving.questions import questions_of

        client = ChatClient(
            server_url(url), model, key_variable=key_variable, timeout=timeout, connections=requests
        )  # before the run is read: a mistyped URL is found at once
        found = load_run(run, step=parse_step(step))
        trained = Trained(found.student, fixed_block(found.block, positions), found.config, found.step)
        questions = questions_of(trained, manifest, rows)
        with progress(len(questions.rows), "answers", "ask", quiet=json_output) as advance:
            made = check(
                trained, client, questions, max_new_tokens=max_new_tokens, margin=margin, requests=requests,
                advance=lambda n: advance(n, None),
            )  # fmt: skip
    if json_output:
        about = {"run": run, "step": trained.step, "server": client.url, "model": client.model}
        typer.echo(json.dumps(about | made.to_json(), ensure_ascii=False, indent=2))
    else:
        show(made, client.url)
    if made.different:
        raise typer.Exit(1)


def show(made: "Check", url: str) -> None:
    """The verdict last."""
    if made.left_out:
        counts = ", ".join(f"{n} {reason}" for reason, n in made.left_out.items())
        say(f"left out, as the student cannot take them: {counts}")
    unit = "token" if made.by_tokens else "word"
    if shown := [row for row in made.rows if row.difference or not row.same(made.margin)]:
        columns = ["row", "prompt", f"first {unit} that differs", "run", "server", "margin", "note"]
        table("Differences", columns, [line_of(row, made.margin) for row in shown])
    rows, different = len(made.rows), len(made.different)
    passed = f", {len(made.tolerated)} of them within {made.margin:g} nats" if made.tolerated else ""
    if different:
        typer.echo(f"{different} of {rows} answers differ, by {unit}s, of {made.source}: {url}")
    else:
        typer.echo(f"{rows} of {rows} answers are the run's, by {unit}s{passed}, of {made.source}: {url}")


def line_of(row: "Row", margin: float) -> list[str]:
    prompt = row.prompt if len(row.prompt) <= SHOWN else row.prompt[:SHOWN] + "..."
    found = row.difference
    note = row.error or row.prompt_difference or ("passed" if row.same(margin) else "")
    if found is None:
        return [row.id, prompt, "-", row.run, row.server or "-", "-", note]
    ours, theirs = ("(end)" if text is None else repr(text) for text in (found.run, found.server))
    nats = "-" if found.margin is None else f"{found.margin:.4f}"
    return [row.id, prompt, str(found.at), ours, theirs, nats, note]
