"""`coat build-shards`."""

import json
import re
from typing import Annotated

import typer

from coat.cli.extract import Json, ManifestPath, Store
from coat.cli.output import bytes_text, duration_text, table
from coat.cli.progress import progress


def build_shards(
    manifest: ManifestPath,
    store: Store,
    experts: Annotated[str, typer.Option(help="Names with commas; name@fingerprint where the store has several.")],
    out: Annotated[str, typer.Option(help="Folder or URL of the shard set.")],
    shard_size: Annotated[str, typer.Option(help="Target size of one tar, as 256MB or 1GB.")] = "256MB",
    missing: Annotated[
        str,
        typer.Option(
            help="Utterances that lack a target: fail, mask (a sample without it) or skip (leave out). "
            "Audio that cannot be decoded is left out in any case."
        ),
    ] = "fail",
    shuffle: Annotated[bool, typer.Option(help="Order samples by --seed, or as the manifest has them.")] = True,
    seed: Annotated[int, typer.Option(help="Of the shuffle.")] = 0,
    workers: Annotated[int, typer.Option(help="Ray tasks at once; 0 runs in this process.", min=0)] = 0,
    ray_address: Annotated[
        str | None, typer.Option(help="Ray cluster to use: auto, or ray://host:port.", envvar="COAT_RAY_ADDRESS")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the shard set in --out.")] = False,
    json_output: Json = False,
) -> None:
    """Join audio, text and targets into WebDataset tars for training.

    Equal inputs give equal bytes. `index.json` is written last: without it the set is not complete.

    Example:

      coat build-shards --manifest corpus.jsonl --store targets --experts pitch,vad,whisper --out shards
    """
    from coat.pipeline.shards import build_shards as run

    with progress(None, "samples", "build-shards", quiet=json_output) as advance:
        index = run(
            manifest,
            store,
            [e.strip() for e in experts.split(",") if e.strip()],
            out,
            shard_size=size_bytes(shard_size),
            missing=missing,  # pyright: ignore[reportArgumentType]  checked there
            seed=seed if shuffle else None,
            workers=workers,
            ray_address=ray_address,
            overwrite=overwrite,
            on_planned=lambda samples: advance(0, total=samples),
            on_shard=lambda built: advance(built.info.samples),
        )
    if json_output:
        typer.echo(json.dumps(index.to_dict(), indent=2))
        return
    rows = [
        [name, e.spec.fingerprint, e.spec.dim, f"{e.spec.rate_hz:g}", e.samples, f"{e.frames:,}"]
        for name, e in index.experts.items()
    ]
    table(f"Shards in {out}", ["expert", "fingerprint", "dim", "frames/s", "samples", "frames"], rows)
    typer.echo(
        f"{len(index.shards)} shards, {index.samples} samples ({index.skipped} left out), "
        f"{duration_text(index.seconds)} of audio, {bytes_text(index.bytes)}"
    )


def size_bytes(text: str) -> int:
    """`256MB`, `1.5GB`, `900kB`: powers of 1000."""
    from coat.manifests.errors import InputError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmMgG]?)[bB]?", text.strip())
    if not match or not float(match[1]):
        raise InputError(f"--shard-size {text}: expected a size as 256MB or 1GB")
    return round(float(match[1]) * 1000 ** " kmg".index(match[2].lower() or " "))
