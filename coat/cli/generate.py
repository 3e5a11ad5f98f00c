"""Command `generate`: parses, and calls one function."""

import json
import time
from typing import Annotated

import typer

from coat.cli.train import quiet


def generate(
    run: Annotated[str, typer.Option(help="Folder of a finished run.")],
    audio: Annotated[str, typer.Option(help="Audio file.")],
    prompt: Annotated[str, typer.Option(help="What to ask about it.")],
    choice: Annotated[list[str] | None, typer.Option(help="An answer that the prompt lists; repeat.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the bare answer.")] = False,
) -> None:
    """Ask a trained student about an audio file. The answer goes to stdout.

    Examples:

      coat generate --run runs/a --audio clip.wav --prompt "Does the pitch rise or fall?"

      coat generate --run runs/a --audio clip.wav --prompt "What is said?" --json
    """
    with quiet():
        from coat.trainer.generate import load_run

        trained = load_run(run)
        start = time.monotonic()
        answer = trained.ask(audio, prompt, choices=choice or (), max_new_tokens=max_new_tokens)
    seconds = round(time.monotonic() - start, 3)
    row = {"audio": audio, "prompt": prompt, "answer": answer, "seconds": seconds}
    typer.echo(json.dumps(row, ensure_ascii=False) if as_json else answer)
