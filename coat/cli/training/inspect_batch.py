"""`coat inspect-batch`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.options import Json
from coat.cli.output import bytes_text
from coat.cli.training.train import SHARDS_HELP, STUDENT_HELP, Configs, Overrides, quiet, say, settings_of

if TYPE_CHECKING:
    from coat.trainer.planning.batch_view import BatchView, SampleView

STYLES = {"prompt": "", "audio": "blue", "block": "magenta", "label": "bold green", "padding": "dim"}


def inspect_batch(
    config: Configs = None,
    student: Annotated[str | None, typer.Option(help=STUDENT_HELP)] = None,
    shards: Annotated[str | None, typer.Option(help=SHARDS_HELP)] = None,
    set_: Overrides = None,
    batch: Annotated[int, typer.Option(help="Which one: the first forward pass of a run is given batch 1.", min=1)] = 1,
    png: Annotated[str | None, typer.Option(help="Picture to write: tokens, sound and targets.")] = None,
    show: Annotated[int, typer.Option(help="Samples that are shown of the batch.", min=1)] = 4,
    json_output: Json = False,
) -> None:
    """Show a training batch as the student receives it: tokens, labels, audio, targets, masks.

    It is the same batch that `coat train` with these options uses, on one rank. No weights are loaded.

    Examples:

      coat inspect-batch --student ./student --shards ./shards

      coat inspect-batch --config train.toml --batch 3 --show 2 --png batch.png
    """
    from coat.manifests import storage

    flags = {"student.path": student, "data.shards": shards, "run.out": "unused"}  # nothing is written
    settings = settings_of(config, flags, set_)
    with quiet():
        from coat.trainer.planning.batch_picture import draw_batch
        from coat.trainer.planning.batch_view import nth_batch, view_batch

        inspected = nth_batch(settings, batch, log=say)
    view = view_batch(inspected)
    if json_output:
        typer.echo(json.dumps(view.to_dict(), indent=2))
    else:
        print_view(view, show)
    if png:
        document = draw_batch(inspected, view, show)
        storage.write_bytes(png, document)
        typer.echo(f"{png}: {bytes_text(len(document))}", err=json_output)


def print_view(view: "BatchView", show: int) -> None:
    """As text; coloured at a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(
        Text(f"batch {view.number}: {len(view.samples)} samples, {view.padding:.0%} of positions are padding")
    )
    for name, shape in view.shapes.items():
        console.print(Text(f"  {name:<28} {' x '.join(map(str, shape))}"))
    counts = ", ".join(f"{name} {count}" for name, count in view.counts.items())
    console.print(Text(f"  losses are divided by           {counts} (tokens; frames)"))
    for reason, count in view.skipped.items():
        console.print(Text(f"  skipped before it: {count} ({reason})"))
    for b, sample in enumerate(view.samples[:show]):
        console.print()
        for line in lines_of(b, sample):
            console.print(line)
    if len(view.samples) > show:
        console.print(Text(f"\n{len(view.samples) - show} more samples: --show {len(view.samples)}"))


def lines_of(b: int, sample: "SampleView") -> list:
    from rich.text import Text

    title = f"sample {b}: {sample.id}, {sample.seconds:.2f} s, {sample.positions} positions"
    lines = [Text(f"{title} and {sample.padding} of padding", style="bold")]
    for segment in sample.segments:
        count = segment.last - segment.first + 1
        place = f"{segment.first}" if count == 1 else f"{segment.first}..{segment.last}"
        text = segment.text.replace("\n", "\\n")
        lines.append(Text(f"  {place:>11}  {segment.role:<8} {text}", style=STYLES[segment.role]))
    if sample.response is None:
        lines.append(Text("  no label: it is distilled only"))
    if sample.mel_frames:
        lines.append(Text(f"  sound        {sample.mel_frames} mel frames, {sample.mel_padding} of padding"))
    if sample.think:
        (first, first_s), (last, last_s) = sample.think[0], sample.think[-1]
        lines.append(Text(f"  think states {len(sample.think)} at {first}..{last}: {first_s:.2f} to {last_s:.2f} s"))
    for t in sample.targets:
        what = "no target: masked" if not t.frames else f"{t.frames} frames, {t.first_s:.3f} to {t.last_s:.3f} s"
        what += f", {t.masked} masked" if t.masked else ""
        lines.append(Text(f"  {t.expert:<12} {what} ({t.kind}, {t.dim} x {t.rate_hz:.5g} Hz)"))
    return lines
