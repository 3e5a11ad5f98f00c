"""`coat intervene`: parses, and calls one function."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.options import Json, RunStep
from coat.cli.output import table
from coat.cli.training.train import quiet, say

if TYPE_CHECKING:
    from coat.analysis.interventions.intervene import Results

SHOWN_GROUPS = 20


def intervene(
    run: Annotated[str, typer.Option(help="Folder of a run.")],
    shards: Annotated[list[str] | None, typer.Option(help="Shard set whose questions are asked; repeat.")] = None,
    step: RunStep = None,
    do: Annotated[
        list[str] | None,
        typer.Option(
            help="PLACE:WHAT; repeat. PLACE: block, audio, or an expert with positions of its own. WHAT: other, mean, "
            "zero, noise, hidden. Default: all of the block; other and hidden of the audio; other of experts."
        ),
    ] = None,
    layers: Annotated[str | None, typer.Option(help="At whose input: 0,4-7. Default: all.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Key of rows to group by. Default: group, task or corpus, if rows have it.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another run, such as one without distillation: differences on the same rows.")
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Generate answers, too; read by the strict rule.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest generated answer.")] = 256,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Instead of shards: so many minimal pairs of each task of --factor.")
    ] = None,
    factor: Annotated[
        str | None, typer.Option(help="What the two differ in: pitch, vowel, event, prosody or count.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="How --pairs are asked. Default: as the quickstart asks.")] = None,
    seed: Annotated[int, typer.Option(help="Of the pairs.", min=0)] = 0,
    samples: Annotated[
        int | None, typer.Option(min=1, help="The first so many rows of each set. Default: all.")
    ] = None,
    donor: Annotated[
        str | None,
        typer.Option(help="Key of rows that holds the id of the donor. Default: the next with another answer."),
    ] = None,
    pool: Annotated[int, typer.Option(min=2, help="Rows among which donors and means are found.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at once.")] = 16,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Padded positions at once.")] = 16384,
    out: Annotated[
        str | None, typer.Option(help="The page (.html). Beside it: .jsonl, the rows, to go on from.")
    ] = None,
    json_output: Json = False,
) -> None:
    """What answers use: replace or hide states of the block, or of the audio, and see what becomes of the answers.

    With --out the same command goes on where it was stopped. Under accelerate launch, ranks share the rows.

    Examples:

      coat intervene --run runs/a --shards heldout --out intervene.html

      coat intervene --run runs/a --shards heldout --do block:other --layers 0-15 --by task

      coat intervene --run runs/a --against runs/plain --shards heldout --out both.html

      coat intervene --run runs/a --pairs 50 --factor pitch
    """
    from pathlib import Path

    from coat.analysis.interventions.intervene import Pairs, Progress, Settings
    from coat.analysis.interventions.intervene import intervene as run_interventions
    from coat.analysis.interventions.kinds import Intervention
    from coat.analysis.interventions.measuring import Limits
    from coat.analysis.interventions.page import page_html
    from coat.cli.progress import progress
    from coat.manifests import InputError, storage
    from coat.trainer.evaluation.asking.who import launched_ranks
    from coat.trainer.records.checkpoint_files import parse_step

    if (pairs is None) != (factor is None):
        raise InputError("--pairs and --factor go together: --pairs 50 --factor pitch")
    if out is not None and not out.endswith(".html"):
        raise InputError(f"--out {out}: expected a page, such as intervene.html")
    settings = Settings(
        shards=tuple(shards or ()),
        pairs=None if pairs is None or factor is None else Pairs(pairs, factor, seed, prompt),
        interventions=tuple(Intervention.parse(one) for one in dict.fromkeys(do or ())),
        layers=layers,
        samples=samples,
        pool=pool,
        donor_key=donor,
        max_new_tokens=max_new_tokens if generate else None,
        by=by,
        limits=Limits(batch_size, batch_tokens),
    )
    with quiet():
        ranks, device = launched_ranks()
        with progress(None, "rows", "intervene", quiet=json_output or not ranks.is_main) as advance:
            results = run_interventions(
                Path(run),
                settings,
                step=parse_step(step),
                against=None if against is None else Path(against),
                rows_path=None if out is None else Path(out).with_suffix(".jsonl"),
                ranks=ranks,
                device=device,
                progress=Progress(lambda n, total: advance(n, total), (lambda _: None) if json_output else say),
            )
    if results is None:
        return
    if out is not None:
        storage.write_bytes(out, page_html(results))
    if json_output:
        typer.echo(json.dumps(results.to_json(), indent=2, ensure_ascii=False))
        return
    show(results)
    if out is not None:
        typer.echo(f"Page: {out}")


def show(results: "Results") -> None:
    from coat.analysis.interventions.page import (
        COMPARED,
        NAMES,
        SHOWN,
        cells,
        difference_text,
        facts_of,
        label_of,
        title_of,
    )

    typer.echo(title_of(results))
    for fact in facts_of(results):
        typer.echo(fact)
    names = ("accuracy", *SHOWN)
    groups = list(dict.fromkeys(line.group for line in results.lines))
    for group in groups[: SHOWN_GROUPS + 1]:
        lines = [line for line in results.lines if line.group == group]
        title = f"{results.by}: {group}" if group else "All rows"
        rows = [[label_of(o.intervention), f"{o.rows:,}", *cells(o, names)] for o in lines]
        table(title, ["", "rows", *(NAMES[n] for n in names)], rows)
        compared = [o for o in lines if o.against is not None and o.against["accuracy"].rows]
        if compared and results.against is not None:
            rows = [
                [label_of(o.intervention), *(difference_text(n, o.against or {}) for n in COMPARED)] for o in compared
            ]
            table(
                f"{title}: less {results.against['run']} (*: the interval leaves out 0)",
                ["", *(NAMES[n] for n in COMPARED)],
                rows,
            )
    if len(groups) > SHOWN_GROUPS + 1:
        typer.echo(f"... and {len(groups) - SHOWN_GROUPS - 1} groups more; --json and --out give all")
