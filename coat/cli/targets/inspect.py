"""`coat inspect`."""

import json
from typing import Annotated

import typer

from coat.cli.options import AllowHttp, Json, ManifestPath, Store
from coat.cli.output import bytes_text


def inspect(
    manifest: ManifestPath,
    store: Store,
    identity: Annotated[str, typer.Option("--id", help="The utterance: its id in the manifest.")],
    out: Annotated[str | None, typer.Option(help="HTML page to write: it plays, and needs no network.")] = None,
    png: Annotated[str | None, typer.Option(help="Picture of the same panels to write, for a paper.")] = None,
    experts: Annotated[
        str, typer.Option(help="Names with commas, or name@fingerprint. Default: all that the store has.")
    ] = "",
    start: Annotated[float | None, typer.Option(help="Seconds from the utterance's start.", min=0)] = None,
    end: Annotated[
        float | None, typer.Option(help="Seconds from the utterance's start. Default: its end, or --start and 60 s.")
    ] = None,
    allow_http: AllowHttp = False,
    json_output: Json = False,
) -> None:
    """Make a web page of one utterance: its audio and its targets on one time axis.

    The page plays the audio and needs no network. Missing targets are named; nothing is extracted. See docs/inspect.md.

    Examples:

      coat inspect --store targets --manifest corpus.jsonl --id a1 --out a1.html

      coat inspect --store targets --manifest corpus.jsonl --id a1 --experts pitch,vad --end 5 --png a1.png
    """
    from coat.manifests import storage
    from coat.manifests.errors import InputError
    from coat.pipeline.inspect.inspection import inspect as run
    from coat.pipeline.inspect.page import inspection_figure, inspection_page

    if not (out or png):
        raise InputError("nothing to write: give --out page.html, --png picture.png, or both")
    found = run(store, manifest, identity, [e.strip() for e in experts.split(",") if e.strip()], start, end)
    renderers = {out: inspection_page} if out else {}
    renderers |= {png: inspection_figure} if png else {}
    written = {}
    for path, render in renderers.items():
        document = render(found)
        storage.write_bytes(path, document)
        written[path] = len(document)
    if json_output:
        experts_shown = [
            {"name": p.title, "fingerprint": p.spec.fingerprint, "frames": p.frames, "problem": p.problem or None}
            for p in found.experts
            if p.spec
        ]
        shown_part = {"id": found.utterance.id, "start": found.start_s, "end": found.end_s, "seconds": found.seconds}
        typer.echo(json.dumps({**shown_part, "experts": experts_shown, "written": written}, indent=2))
        return
    for path, size in written.items():
        typer.echo(f"{path}: {bytes_text(size)}, {len(found.experts)} targets of {found.utterance.id}")
    for panel in [*found.sound, *found.experts]:
        if panel.problem:
            typer.echo(f"{panel.title}: {panel.problem}", err=True)
    if found.excerpt_note:
        typer.echo(found.excerpt_note, err=True)
