"""`coat fidelity`: parses, and calls one function."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.options import Json, RunStep
from coat.cli.output import bytes_text, table
from coat.cli.progress import progress
from coat.cli.training.train import quiet

if TYPE_CHECKING:
    from coat.trainer.fidelity.results import FidelityResults

SHOWN_GROUPS = 40  # lines of the table by corpus


def fidelity(
    run: Annotated[str, typer.Option(help="Folder of a run.")],
    step: RunStep = None,
    shards: Annotated[
        list[str] | None,
        typer.Option(help="Held-out shards with the targets of its experts; repeat. Default: its evaluation.shards."),
    ] = None,
    floor_run: Annotated[
        str | None,
        typer.Option(help="A run that was trained with heads.detach=true: what can be heard without distillation."),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="The first so many of each set. Default: all.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: as the run was trained.", min=1)] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Key of the manifest that names a row's corpus; repeat: the first that it has. Default: corpus, "
            "dataset, group; else, of several --shards, the set."
        ),
    ] = None,
    present: Annotated[
        float, typer.Option(help="A class is there from this probability on (mAP, AUC).", min=0.0, max=1.0)
    ] = 0.5,
    out: Annotated[str | None, typer.Option(help="HTML page to write: it needs no network.")] = None,
    json_output: Json = False,
) -> None:
    """How well the block hears: what heads say of held-out clips against what the experts heard.

    By the measures of each field, overall and by corpus, with 95 % intervals over clips; beside them what the training
    mean gives, and heads on a student that learnt nothing from the experts. See docs/analysis.md.

    Examples:

      coat fidelity --run runs/a --shards heldout

      coat fidelity --run runs/a --floor-run runs/floor --shards speech --shards music --out fidelity.html

      accelerate launch -m coat fidelity --run runs/a --shards heldout --json
    """
    from coat.manifests import storage

    with quiet():
        from coat.trainer.fidelity.fidelity import GROUP_KEYS, FidelityOptions, measure_fidelity
        from coat.trainer.ranks import launched_accelerator
        from coat.trainer.records.checkpoint_files import parse_step

        accelerator = launched_accelerator()
        is_main = accelerator is None or accelerator.is_main_process
        options = FidelityOptions(
            run=run, shards=tuple(shards or ()), step=parse_step(step), floor_run=floor_run, samples=samples,
            batch_size=batch_size, by=tuple(by or GROUP_KEYS), present=present,
        )  # fmt: skip
        with passes(json_output or not is_main) as start:
            found = measure_fidelity(options, accelerator, start)
    if not is_main:
        return
    if out:
        from coat.trainer.fidelity.page import fidelity_page

        document = fidelity_page(found)
        storage.write_bytes(out, document)
        typer.echo(f"{out}: {bytes_text(len(document))}", err=json_output)
    if json_output:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    show(found)


@contextmanager
def passes(silent: bool) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Gives what begins a bar: one for each run, after the other."""
    with ExitStack() as stack:

        def start(label: str, total: int) -> Callable[[int], None]:
            stack.close()
            return stack.enter_context(progress(total, "clips", label, quiet=silent))

        yield start


def show(found: "FidelityResults") -> None:
    from coat.trainer.fidelity.results import FLOOR, MEAN, RUN
    from coat.trainer.fidelity.text import (
        cells_of,
        columns_of,
        facts_of,
        heading,
        headings_of,
        label_of,
        subject_cells,
    )

    typer.echo(heading(found))
    columns = columns_of(found.experts)
    lines = [
        [one.expert if i == 0 else "", label_of(name), *cells_of(one, name, columns)]
        for one in found.experts
        for i, name in enumerate(one.names)
    ]
    table("How well the block hears", ["expert", "measure", *columns], lines)
    grouped = [(one, group) for one in found.experts for group in one.groups]
    subjects = [s for s in (RUN, MEAN, FLOOR) if any(s in one.figures for one in found.experts)]
    lines = []
    for one, group in grouped[:SHOWN_GROUPS]:
        name = one.names[0]
        cells = [c for s in subjects for c in subject_cells(group.figures, s, name)]
        lines.append([group.name, f"{group.clips:,}", one.expert, label_of(name), *cells])
    if lines:
        heads = [c for s in subjects for c in headings_of(s)]
        table("By corpus", ["corpus", "clips", "expert", "measure", *heads], lines)
    if len(grouped) > SHOWN_GROUPS:
        typer.echo(f"... and {len(grouped) - SHOWN_GROUPS} lines more; --json and --out have all")
    for one in found.experts:
        for fact in facts_of(one):
            typer.echo(f"{one.expert}: {fact}")
    for note in found.notes:
        typer.echo(note, err=True)
    if found.skipped:
        typer.echo("left out: " + ", ".join(f"{n:,} {reason}" for reason, n in found.skipped.items()), err=True)
