"""Command `probe`: parses, and calls one function."""

import json
import tempfile
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from coat.cli.options import Json, RunStep, comma_separated
from coat.cli.output import bytes_text, table
from coat.cli.progress import progress
from coat.cli.training.train import quiet

if TYPE_CHECKING:
    from coat.analysis.probing.results import Probes
    from coat.analysis.probing.subject import Subject


def probe(
    shards: Annotated[str, typer.Option(help="Folder or URL that build-shards wrote; best one of held-out clips.")],
    run: Annotated[list[str] | None, typer.Option(help="Folder of a run; repeat to compare.")] = None,
    student: Annotated[
        list[str] | None, typer.Option(help="A student without coat, to compare: hub id or folder; repeat.")
    ] = None,
    step: RunStep = None,
    layers: Annotated[
        str, typer.Option(help="all, or such as 0,8,last: the input of layer l; last: behind the final norm.")
    ] = "all",
    positions: Annotated[
        str, typer.Option(help="Where states are read: audio, think, question, response (before its first token).")
    ] = "audio,think,question,response",
    experts: Annotated[
        str | None, typer.Option(help="Whose targets are read off, with commas; none. Default: all of the shards.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Key of the samples' extra to read off: words or numbers; repeat.")
    ] = None,
    frames: Annotated[
        bool, typer.Option("--frames", help="At audio and think positions one by one, not by the clip's mean.")
    ] = False,
    folds: Annotated[int, typer.Option(help="Folds of clips; each is tested once.", min=3)] = 5,
    folds_by: Annotated[
        str | None, typer.Option(help="Key of the samples' extra: clips that share it share a fold (speaker).")
    ] = None,
    classifier: Annotated[
        Literal["logistic", "ridge"],
        typer.Option(help="What tells a label's words apart; numbers are always by ridge."),
    ] = "logistic",
    clips: Annotated[int | None, typer.Option(help="Only the first so many samples.", min=1)] = None,
    out: Annotated[str | None, typer.Option(help="HTML page to write: heat maps and all figures.")] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Folder that keeps the states: a killed command goes on, a second one reads no model. "
            "Default: a temporary one."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a batch.")] = 16,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Padded positions of a batch.")] = 16384,
    dtype: Annotated[str, typer.Option(help="Of --student: auto, float32, bfloat16 or float16.")] = "auto",
    json_output: Json = False,
) -> None:
    """Say what linear probes can read off a student's hidden states, by layer and position.

    Ridge regression of numbers and logistic regression of words, cross-validated by clip, the penalty chosen inside;
    each figure beside the same probe on shuffled targets. It shows what is there, not what is used. See
    docs/analysis.md.

    Examples:

      coat probe --run runs/a --shards heldout-shards --out probes.html

      coat probe --run runs/a --shards heldout-shards --layers 0,16,last --label speaker --cache states

      coat probe --run runs/coat --run runs/plain --student Qwen/Qwen2-Audio-7B-Instruct --shards heldout-shards --json

      coat probe --run runs/a --shards heldout-shards --experts pitch --positions audio,think --frames

      accelerate launch -m coat probe --run runs/a --shards heldout-shards --cache states
    """
    from coat.manifests import storage
    from coat.manifests.errors import InputError

    if not run and not student:
        raise InputError("whose states? give --run, or --student; several are compared")
    if step is not None and not run:
        raise InputError("--step is of a --run; a --student has none")
    with quiet():
        from coat.analysis.probing.probe import probe as run_probe
        from coat.analysis.probing.results import ProbeSettings
        from coat.trainer.ranks import is_launched, launched_accelerator

        if is_launched() and not cache:
            raise InputError("ranks share the states that they read: give --cache, a folder that all of them see")
        accelerator = launched_accelerator()
        silent = json_output or (accelerator is not None and not accelerator.is_main_process)
        settings = ProbeSettings(
            shards, layers, words(positions), None if experts is None else words(experts), label or (), frames, folds,
            folds_by, clips, batch_size, batch_tokens, classifier=classifier,
        )  # fmt: skip
        subjects = subjects_of(run or [], student or [], step, dtype)
        with nullcontext(cache) if cache else tempfile.TemporaryDirectory(prefix="coat-probe-") as folder:
            found = run_probe(
                settings, subjects, str(folder), lambda n, unit, label: progress(n, unit, label, silent), accelerator
            )
    if found is None:  # not the main rank
        return
    if json_output:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        show(found)
    if out:
        from coat.analysis.probing.page import probes_page

        document = probes_page(found)
        storage.write_bytes(out, document)
        typer.echo(f"{out}: {bytes_text(len(document))}", err=json_output)


def words(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(comma_separated(text)))
    return () if found == ("none",) else found


def subjects_of(runs: list[str], students: list[str], step: str | None, dtype: str) -> "list[Subject]":
    from coat.analysis.probing.subject import Subject
    from coat.trainer.records.checkpoint_files import parse_step

    return [*(Subject.run(run, parse_step(step)) for run in runs), *(Subject.student(s, dtype) for s in students)]


def show(probes: "Probes") -> None:
    from coat.analysis.probing.page import best_layers, cells, columns_of, facts_line, metric_text, subject_facts

    typer.echo(facts_line(probes))
    for name, facts in subject_facts(probes).items():
        typer.echo(f"{name}: {facts}")
    for target in probes.targets:
        best = best_layers([score for score in probes.scores if score.target == target.name])
        title = f"{target.name}: {metric_text(target)}; the best layer of each position"
        table(title, columns_of(probes), [cells(probes, score) for score in best])
    for name, why in probes.problems.items():
        typer.echo(f"not probed: {name}, it {why}", err=True)
    for warning in probes.warnings:
        typer.echo(f"warning: {warning}", err=True)
