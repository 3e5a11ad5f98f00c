"""`coat inspect`."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.clips import (
    ClipOptions,
    Disagree,
    Failed,
    Ids,
    Limit,
    Longest,
    PageWorkers,
    Sample,
    Seed,
    Wrong,
    page_workers,
)
from coat.cli.options import AllowHttp, Json, ManifestPath, Store, comma_separated
from coat.cli.output import bytes_text

if TYPE_CHECKING:
    from coat.pipeline.inspect.inspection import Inspection


def inspect(
    manifest: ManifestPath,
    store: Store,
    identity: Annotated[str | None, typer.Option("--id", help="The utterance: its id in the manifest.")] = None,
    out: Annotated[
        str | None, typer.Option(help="HTML page to write: it plays, and needs no network. Of several clips: a folder.")
    ] = None,
    png: Annotated[str | None, typer.Option(help="Picture of the same panels to write, for a paper.")] = None,
    experts: Annotated[
        str, typer.Option(help="Names with commas, or name@fingerprint. Default: all that the store has.")
    ] = "",
    start: Annotated[float | None, typer.Option(help="Seconds from the utterance's start.", min=0)] = None,
    end: Annotated[
        float | None, typer.Option(help="Seconds from the utterance's start. Default: its end, or --start and 60 s.")
    ] = None,
    sample: Sample = None,
    seed: Seed = 0,
    ids: Ids = None,
    failed: Failed = False,
    longest: Longest = None,
    disagree: Disagree = None,
    wrong: Wrong = None,
    limit: Limit = 50,
    workers: PageWorkers = None,
    allow_http: AllowHttp = False,
    json_output: Json = False,
) -> None:
    """Make a web page of one utterance: its audio and its targets on one time axis. Of several: a gallery.

    The page plays the audio and needs no network. Missing targets are named; nothing is extracted. See docs/inspect.md.

    Examples:

      coat inspect --store targets --manifest corpus.jsonl --id a1 --out a1.html

      coat inspect --store targets --manifest corpus.jsonl --id a1 --experts pitch,vad --end 5 --png a1.png

      coat inspect --store targets --manifest corpus.jsonl --sample 20 --out gallery

      coat inspect --store targets --manifest corpus.jsonl --disagree pitch,crepe --limit 12 --out disagree
    """
    from coat.manifests.errors import InputError

    options = ClipOptions(sample, seed, ids, failed, longest, disagree, wrong, limit)
    named = comma_separated(experts)
    if options.is_gallery:
        if identity is not None or png or not out:
            raise InputError("several clips are a gallery: give --out FOLDER, and neither --id nor --png")
        write_gallery(options, manifest, store, named, (start, end), out, workers, json_output)
        return
    if identity is None:
        raise InputError("which clip? give --id, or --sample, --ids, --failed, --longest, --disagree or --wrong")
    if not (out or png):
        raise InputError("nothing to write: give --out page.html, --png picture.png, or both")
    write_page(manifest, store, identity, named, (start, end), out, png, json_output)


def write_page(
    manifest: str,
    store: str,
    identity: str,
    experts: list[str],
    shown: tuple[float | None, float | None],
    out: str | None,
    png: str | None,
    json_output: bool,
) -> None:
    from coat.manifests import storage
    from coat.pipeline.inspect.inspection import inspect as run
    from coat.pipeline.inspect.page import inspection_figure, inspection_page

    found = run(store, manifest, identity, experts, *shown)
    renderers = {out: inspection_page} if out else {}
    renderers |= {png: inspection_figure} if png else {}
    written = {}
    for path, render in renderers.items():
        document = render(found)
        storage.write_bytes(path, document)
        written[path] = len(document)
    say(found, written, json_output)


def say(found: "Inspection", written: dict[str, int], json_output: bool) -> None:
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
    for panel in found.panels:
        if panel.problem:
            typer.echo(f"{panel.title}: {panel.problem}", err=True)
    if found.excerpt_note:
        typer.echo(found.excerpt_note, err=True)


def write_gallery(
    options: ClipOptions,
    path: str,
    store: str,
    experts: list[str],
    shown: tuple[float | None, float | None],
    out: str,
    workers: int | None,
    json_output: bool,
) -> None:
    from coat.cli.progress import progress
    from coat.drawing.galleries.gallery import check_out
    from coat.manifests.corpus.manifest import Manifest
    from coat.pipeline.inspect.gallery import inspection_gallery
    from coat.pipeline.inspect.selection import select_target_sets

    check_out(out)
    manifest, targets = Manifest.read(path), list(select_target_sets(store, experts))
    with progress(None, "clips", "comparing pitches", json_output or options.disagree is None) as advance:
        chosen, measure, left_out = options.choose(manifest, targets, store, advance)
    with progress(len(chosen), "pages", "drawing", json_output) as advance:
        pages = inspection_gallery(
            manifest,
            chosen,
            targets,
            out,
            measure=measure,
            start_s=shown[0],
            end_s=shown[1],
            workers=page_workers(workers, len(chosen)),
            advance=advance,
        )
    if json_output:
        rows = [
            {"id": page.id, "file": page.file, "seconds": page.seconds, "status": page.status, **page.values}
            for page in pages
        ]
        typer.echo(json.dumps({"out": out, "left_out": left_out, "pages": rows}, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{out}/index.html: {len(pages)} pages" + (f"; {left_out} more: --limit" if left_out else ""))
