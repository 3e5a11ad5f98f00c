"""`coat doctor`."""

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.options import Json, RayAddress

if TYPE_CHECKING:
    from coat.doctor.finding import Finding, State

COLOURS = {"ok": "green", "absent": "bright_black", "warning": "yellow", "broken": "red"}


def doctor(
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="One subject alone: versions, system, limits, memory, disks, extras, audio, gpu, hub, ray. Repeat for "
            "several."
        ),
    ] = None,
    ray_address: RayAddress = None,
    patience: Annotated[float, typer.Option(help="Seconds for one subject, before it is called broken.", min=1)] = 60.0,
    json_output: Json = False,
) -> None:
    """Say what is wrong with this machine, and what to do about it.

    Looks at versions, clock and locale, ulimits, memory, disks, extras, audio libraries, GPUs, the model hub, and
    whether Ray starts, or (--ray-address) the nodes of a cluster. Lines are ok, absent (nothing wrong with that),
    warning or broken. Exit code 1 where something is broken, 0 otherwise. Nothing is changed, no token is printed.

    Examples:

      coat doctor

      coat doctor --only gpu --only ray --ray-address auto

      coat doctor --json > doctor.json      (for a bug report: read it first, it names folders)
    """
    from coat import __version__
    from coat.doctor.examine import examine
    from coat.doctor.finding import Request
    from coat.doctor.subjects import chosen

    began = time.monotonic()
    subjects = chosen(only)
    found: list[tuple[str, Finding]] = []
    subject_shown = None
    for subject, finding in examine(subjects, Request(ray_address=ray_address), patience):
        found.append((subject, finding))
        if not json_output:
            if subject != subject_shown:
                typer.secho(subject, bold=True)
                subject_shown = subject
            show(finding)
    counts = {state: sum(f.state == state for _, f in found) for state in COLOURS}
    seconds = time.monotonic() - began
    if json_output:
        document = {"coat": __version__, "state": worst(counts), "counts": counts, "seconds": round(seconds, 1)}
        typer.echo(json.dumps({**document, "findings": [as_json(s, f) for s, f in found]}, indent=2))
    else:
        shown = {"broken": counts["broken"], "warning" + "s" * (counts["warning"] != 1): counts["warning"]}
        shown |= {"absent": counts["absent"], "ok": counts["ok"]}
        told = ", ".join(f"{n} {state}" for state, n in shown.items() if n)
        typer.echo(f"{told}  ({seconds:.1f} s)")
    sys.stdout.flush()
    raise typer.Exit(1 if counts["broken"] else 0)


def show(finding: "Finding") -> None:
    mark = typer.style(f"{finding.state:<7}", fg=COLOURS[finding.state])
    typer.echo(f"  {mark}  {finding.what}: {finding.found}")
    if finding.remedy:
        typer.echo(f"           -> {finding.remedy}")


def worst(counts: dict[str, int]) -> "State":
    return "broken" if counts["broken"] else "warning" if counts["warning"] else "ok"


def as_json(subject: str, finding: "Finding") -> dict[str, Any]:
    from dataclasses import asdict

    return {"subject": subject, **asdict(finding)}
