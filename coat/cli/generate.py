"""Command `generate`: parses, and calls one function."""

import json
import time
from typing import Annotated

import typer

from coat.cli.train import quiet


def generate(
    run: Annotated[str, typer.Option(help="Folder of a finished run.")],
    audio: Annotated[str, typer.Option(help="Audio file.")],
    prompt: Annotated[list[str], typer.Option(help="What to ask about it; repeat for several answers.")],
    choice: Annotated[list[str] | None, typer.Option(help="An answer that the one prompt lists; repeat.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object a prompt instead of bare answers; seconds are of all prompts.")
    ] = False,
) -> None:
    """Ask a trained student about an audio file. The answers go to stdout, in the order of the prompts.

    Several prompts hear the audio once: what they share is kept from one to the next.

    Examples:

      coat generate --run runs/a --audio clip.wav --prompt "Does the pitch rise or fall?"

      coat generate --run runs/a --audio clip.wav --prompt "What is said?" --prompt "Who speaks?" --json
    """
    from coat.manifests.errors import InputError

    if choice and len(prompt) > 1:
        raise InputError("--choice belongs to one --prompt; ask prompts with choices one by one")
    with quiet():
        from coat.trainer.generate import load_run

        trained = load_run(run)
        start = time.monotonic()
        if choice:
            answers = [trained.ask(audio, prompt[0], choices=choice, max_new_tokens=max_new_tokens)]
        else:
            answers = trained.ask_each(audio, prompt, max_new_tokens=max_new_tokens)
    seconds = round(time.monotonic() - start, 3)
    for asked, answer in zip(prompt, answers, strict=True):
        row = {"audio": audio, "prompt": asked, "answer": answer, "seconds": seconds}
        typer.echo(json.dumps(row, ensure_ascii=False) if as_json else answer)
