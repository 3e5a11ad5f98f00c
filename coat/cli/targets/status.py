"""`coat status`: what a store holds and who is at work on it; once, or again and again."""

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.output import bytes_text, duration_text, table

if TYPE_CHECKING:
    from coat.pipeline.status.activity import RunActivity
    from coat.pipeline.status.status import SetStatus

CLEAR = "\x1b[2J\x1b[H"  # of a terminal
TOP_ERRORS = 5  # kinds that are shown with an example


def status(
    store: Annotated[str, typer.Argument(help="Target store: folder or URL.")],
    manifest: Annotated[str | None, typer.Option(help="Count the rows of this manifest alone.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="List every failed row with its reason.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again, as long as a run is at work.")
    ] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks of --watch.", min=0.1)] = 10.0,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document (a line a look).")] = False,
) -> None:
    """Show the progress of extractions: rows done, failed and missing, speed and time left.

    Examples:

      coat status targets --manifest corpus.jsonl --failed

      coat status s3://bucket/targets --watch
    """
    from coat.manifests.corpus.manifest import Manifest
    from coat.manifests.errors import InputError
    from coat.pipeline.status.status import Watch

    eyes = Watch(store, Manifest.read(manifest, spans=True, on_disk=True) if manifest else None)
    while True:
        found = eyes.look()
        if not found:
            raise InputError(f"{store}: no target sets (<expert>/<fingerprint>/spec.json) in it; is this a store?")
        if json_output:
            typer.echo(json.dumps([s.to_dict() for s in found], indent=None if watch else 2))
        else:
            if watch and sys.stdout.isatty():
                typer.echo(CLEAR, nl=False)
            show(store, found, failed)
        if not watch or not any(s.at_work for s in found):
            return
        time.sleep(every)


def show(store: str, found: "list[SetStatus]", failed: bool) -> None:
    rows = [
        [s.expert, s.fingerprint, s.dim, f"{s.rate_hz:g}", s.units, s.ok, s.failed, s.skipped]
        + ["-" if s.missing is None else s.missing, f"{s.hours:.3f}", bytes_text(s.bytes)]
        for s in found
    ]
    columns = ["expert", "fingerprint", "dim", "frames/s", "units", "ok", "failed", "skipped", "missing", "hours"]
    table(f"Targets in {store}", [*columns, "bytes"], rows)
    for s in found:
        if s.padding_share is not None:
            typer.echo(f"{s.expert}: time went to {slowest(s)}; padding {max(0.0, s.padding_share):.1%}")
        for run in s.runs:
            typer.echo(f"{s.expert}: {run_text(run)}")
    kinds = [
        [s.expert, n, kind, *s.examples[kind]] for s in found for kind, n in s.reasons.items() if kind in s.examples
    ]
    if failed and any(s.failures for s in found):
        table("Failed rows", ["expert", "id", "reason"], [[s.expert, *f] for s in found for f in s.failures])
    elif kinds:
        table("Most frequent errors", ["expert", "rows", "kind", "for example", "which says"], kinds[:TOP_ERRORS])


def slowest(s: "SetStatus") -> str:
    """The two stages that took most. Decoding and writing go on beside the expert; waiting is what they cost it."""
    whole = s.stages["wait"] + s.stages["forward"] + s.stages["write"]
    shares = sorted(((seconds, name) for name, seconds in s.stages.items() if name != "decode"), reverse=True)
    return ", ".join(f"{name} {seconds / whole:.0%}" for seconds, name in shares[:2]) if whole else "-"


def run_text(run: "RunActivity") -> str:
    if not run.alive:
        return f"run {run.run} on {run.host} died with {run.in_hand} units in hand; run the same command again"
    left = f", {duration_text(run.eta_seconds)} left" if run.eta_seconds is not None else ""
    return (
        f"run {run.run} on {run.host}: {run.units_done} of {run.units} units, RTFx {run.rate:.0f}{left}, "
        f"{run.workers} workers, {run.failed} rows failed"
    )
