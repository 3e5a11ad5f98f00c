"""`coat experts`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.options import Checkpoint, Compile, Json, Layer, PadMargin, Precision, expert_options
from coat.cli.output import table

if TYPE_CHECKING:
    from coat.extractors.expert import Card, Expert, Options

MARKS = {True: "held", False: "BROKEN", None: "not tried"}


def experts(
    check: Annotated[
        str | None,
        typer.Option(
            help="Test one expert: a name, package.module:Class, or file.py:Class. Exit code 1 where a check fails."
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    layer: Layer = None,
    precision: Precision = "float32",
    compile: Compile = False,
    pad_margin: PadMargin = None,
    device: Annotated[str, typer.Option(help="Of the trial: cpu, cuda or cuda:N.")] = "cpu",
    json_output: Json = False,
) -> None:
    """List the experts, their sizes, licences and whether they can run here; or test one (--check).

    --check plays sounds with known events to the expert and compares its frames with what it declares: frame times,
    independence of batch mates, no seams in long audio, finite values on silence, and more.

    Examples:

      coat experts --json

      coat experts --check pitch

      coat experts --check my_experts.py:Loudness
    """
    if check:
        chosen = expert_options(checkpoint, layer, "float16", precision, compile, pad_margin)
        raise typer.Exit(0 if show_trial(check, chosen, device, json_output) else 1)
    from coat.extractors.registry import expert_names, find, why_unusable

    cards = {name: find(name).card for name in expert_names()}
    reasons = {name: why_unusable(card) for name, card in cards.items()}
    if json_output:
        from dataclasses import asdict

        found = [{"name": n, **asdict(c), "usable": reasons[n] is None, "reason": reasons[n]} for n, c in cards.items()]
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [
        [n, c.family, c.dim or "checkpoint", f"{c.rate_hz:.4g}" if c.rate_hz else "checkpoint"]
        + [c.checkpoint or "-", c.licence, reasons[n] or runs_here(c)]
        for n, c in cards.items()
    ]
    table("Experts", ["name", "family", "dim", "frames/s", "default checkpoint", "licence", "usable now"], rows)


def runs_here(card: "Card") -> str:
    if card.checkpoint is None:
        return "yes, with a --checkpoint"
    return "yes (weights from the hub)" if "/" in card.checkpoint else "yes"


def show_trial(name: str, chosen: "Options", device: str, json_output: bool) -> bool:
    """Whether all that was tried held."""
    from dataclasses import asdict

    from coat.extractors.conformance.suite import run_checks
    from coat.extractors.registry import create

    expert = create(name, chosen)
    expert.load(device)
    if json_output:
        found = list(run_checks(expert))
        document = {"expert": expert.spec.to_dict(), "findings": [asdict(f) for f in found]}
        typer.echo(json.dumps(document, indent=2))
    else:
        describe(expert)
        found = []
        for finding in run_checks(expert):
            found.append(finding)
            typer.echo(f"{MARKS[finding.held]:>9}  {finding.check}: {finding.said}")
        broken = sum(f.held is False for f in found)
        typer.echo(f"{expert.name}: {f'{broken} of {len(found)} checks BROKEN' if broken else 'holds'}")
    return all(f.held is not False for f in found)


def describe(expert: "Expert") -> None:
    spec = expert.spec
    typer.echo(f"{spec.expert} (version {spec.version}, fingerprint {spec.fingerprint}), weights {spec.weights}")
    typer.echo(f"{spec.dim} numbers, {spec.rate_hz:.6g} frames a second, frame 0 at {spec.start_s:.6g} s; {spec.kind}")
