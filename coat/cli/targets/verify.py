"""`coat verify`, of a target store and of a shard set."""

import json
from functools import partial
from typing import Annotated

import typer

from coat.cli.options import AllowHttp, Json, RayAddress, Workers
from coat.cli.output import bytes_text
from coat.cli.progress import progress


def verify(
    store: Annotated[str, typer.Argument(help="Target store or shard set: folder or URL.")],
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Drop damaged units, so that the next extract makes them again; build tars again."
        ),
    ] = False,
    sources: Annotated[
        str | None,
        typer.Option(help="Manifest whose audio is decoded again: names rows that do not sound as they were heard."),
    ] = None,
    workers: Workers = 0,
    ray_address: RayAddress = None,
    allow_http: AllowHttp = False,
    json_output: Json = False,
) -> None:
    """Check a target store or a shard set for damage. Exit code 1 where there is some.

    Of a store: checksums, counts, finite values, agreement with its specs. Of a shard set: checksums, members,
    lengths by spec and audio, and that there are no other files.

    Examples:

      coat verify targets

      coat verify targets --sources corpus.jsonl

      coat verify shards --repair --workers 8
    """
    from dataclasses import asdict

    from coat.manifests import storage
    from coat.manifests.shards.index import INDEX_NAME

    if storage.exists(storage.join(store, INDEX_NAME)):
        verify_shards(store, repair, workers, ray_address, json_output)
        return
    from coat.manifests.corpus.manifest import Manifest
    from coat.pipeline.cluster.ordered import run_ordered
    from coat.pipeline.store_checks.verification import verify as run

    corpus = Manifest.read(sources) if sources else None
    with progress(None, "units", "verify", quiet=json_output) as advance:
        run_jobs = partial(run_ordered, workers=workers, ray_address=ray_address)
        found = run(store, repair, advance, corpus, run_jobs)
    if json_output:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        for damage in found.damages:
            typer.echo(str(damage))
        what = f"{found.target_sets} target sets, {found.units} units, {found.frames:,} frames, "
        typer.echo(f"{what}{bytes_text(found.bytes)}: {len(found.damages) or 'no'} damage found")
        if found.repaired:
            typer.echo(f"{found.repaired} damaged units dropped; run `coat extract` again to make them anew")
        elif found.damages:
            typer.echo("`coat verify --repair` drops damaged units; the next extract makes them again")
        for change in found.changes:
            typer.echo(str(change))
        if corpus is not None:
            hint = "; `coat extract --refresh` redoes them" if found.changes else ""
            typer.echo(f"{len(found.changes) or 'no'} rows sound different or are gone{hint}")
    if found.damages or found.changes:
        raise typer.Exit(1)


def verify_shards(shards: str, repair: bool, workers: int, ray_address: str | None, json_output: bool) -> None:
    from dataclasses import asdict

    from coat.pipeline.shard_checks.verification import verify_shards as run

    with progress(None, "shards", "verify", quiet=json_output) as advance:
        found = run(shards, repair, advance, workers, ray_address)
    if json_output:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        for damage in found.damages:
            typer.echo(str(damage))
        what = f"{found.shards} shards, {found.samples} samples, {bytes_text(found.bytes)}"
        typer.echo(f"{what}: {len(found.damages) or 'no'} damage found")
        if found.damages:
            typer.echo(f"{found.repaired} mended" if repair else "`coat verify --repair` builds damaged tars again")
    if found.damages:
        raise typer.Exit(1)
