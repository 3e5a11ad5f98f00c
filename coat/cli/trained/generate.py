"""Command `generate`: parses, and calls one function."""

import json
import time
from typing import Annotated, Any

import typer

from coat.cli.options import AllowHttp, RunStep
from coat.cli.training.train import quiet


def generate(
    run: Annotated[str, typer.Option(help="Folder of a run.")],
    prompt: Annotated[list[str], typer.Option(help="What to ask about it; repeat for several answers.")],
    audio: Annotated[
        list[str] | None, typer.Option(help="Audio file; repeat for several that are heard together, or leave out.")
    ] = None,
    step: RunStep = None,
    choice: Annotated[list[str] | None, typer.Option(help="An answer that the one prompt lists; repeat.")] = None,
    turns: Annotated[str | None, typer.Option(help="What was said before, as JSON: [[prompt, answer], ...].")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer; one that is cut there is marked.")] = 256,
    allow_http: AllowHttp = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object a prompt instead of bare answers; seconds are of all prompts.")
    ] = False,
) -> None:
    """Ask a trained student questions about audio.

    Answers go to stdout, in the order of the prompts. Several prompts share one pass over the audio.

    Examples:

      coat generate --run runs/a --audio clip.wav --prompt "Does the pitch rise or fall?"

      coat generate --run runs/a --audio clip.wav --prompt "What is said?" --prompt "Who speaks?" --json

      coat generate --run runs/a --step best --audio clip.wav --prompt "What is said?"

      coat generate --run runs/a --audio clip.wav --turns '[["What is it?", "A tone."]]' --prompt "How high?"
    """
    from coat.manifests.corpus.utterance import parse_turns
    from coat.manifests.errors import InputError

    if choice and len(prompt) > 1:
        raise InputError("--choice belongs to one --prompt; ask prompts with choices one by one")
    try:
        before = parse_turns(json.loads(turns or "[]"))
    except ValueError as e:
        raise InputError(f"--turns {turns}: {e}") from e
    with quiet():
        from coat.trainer.generation.run_student import load_run
        from coat.trainer.records.checkpoint_files import parse_step

        trained = load_run(run, step=parse_step(step))
        start = time.monotonic()
        heard: Any = audio or None
        if choice or before:
            answers = [
                trained.ask(heard, one, choices=choice or (), turns=before, max_new_tokens=max_new_tokens)
                for one in prompt
            ]
        else:
            answers = trained.ask_each(heard, prompt, max_new_tokens=max_new_tokens)
    seconds = round(time.monotonic() - start, 3)
    for one, answer in zip(prompt, answers, strict=True):
        row = {
            "audio": audio[0] if audio and len(audio) == 1 else audio,
            "prompt": one,
            "answer": answer,
            "cut": answer.is_cut,
            "step": trained.step,
            "seconds": seconds,
        }
        typer.echo(json.dumps(row, ensure_ascii=False) if as_json else answer)
        if answer.is_cut and not as_json:
            typer.echo(f"the answer is cut at {max_new_tokens} tokens; --max-new-tokens gives it more", err=True)
