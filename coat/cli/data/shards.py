"""`coat build-shards` and `coat shards`."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.options import AllowHttp, Json, RayAddress, Store, Workers, comma_separated, parse_bytes
from coat.cli.output import bytes_text, duration_text, table
from coat.cli.progress import progress

if TYPE_CHECKING:
    from coat.manifests.shards.index import ShardIndex

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Extend and describe shard sets.")

ShardsPath = Annotated[str, typer.Argument(help="A shard set: what `coat build-shards --out` wrote.")]

Rate = Annotated[str | None, typer.Option(help="Lower frame rate in Hz: 12.5, or whisper=12.5,pitch=50.")]
Pca = Annotated[str | None, typer.Option(help="Principal components of hidden states: whisper=192.")]
Whiten = Annotated[str | None, typer.Option(help="Experts whose components are scaled to variance 1.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, float16, int8 or int4, or whisper=int8: as stored in the shards.")
]
Scale = Annotated[
    str | None,
    typer.Option(help="Of int8: a scale by frame or by dimension, or whisper=dimension. int4 is by dimension."),
]
TopK = Annotated[str | None, typer.Option(help="Largest probabilities of a frame that are kept: yamnet=10.")]


def build_shards(
    manifest: Annotated[
        list[str],
        typer.Option(
            "--manifest", help="Manifest, or a folder or pattern of its parts. Repeat for several, see --weights."
        ),
    ],
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
    layout: Annotated[
        str, typer.Option(help="joint: targets beside the audio. sidecar: in tars of their own, one set an expert.")
    ] = "joint",
    audio: Annotated[
        str,
        typer.Option(
            help="flac, original (files as they are; spans of files as FLAC at their own rate) or none (paths)."
        ),
    ] = "flac",
    sample_rate: Annotated[int, typer.Option(help="Of the FLAC, in Hz, mono.", min=1000)] = 16000,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            help="Cut longer utterances into even pieces with their spans of the targets (30 for Qwen2-Audio)."
        ),
    ] = None,
    filter: Annotated[
        str | None, typer.Option(help="Keep rows for which this holds, as \"duration < 30 and language == 'en'\".")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A number for each --manifest: 0.5 takes half of its rows, 2 each of them twice.")
    ] = None,
    rate: Rate = None,
    pca: Pca = None,
    whiten: Whiten = None,
    dtype: Dtype = None,
    scale: Scale = None,
    topk: TopK = None,
    workers: Workers = 0,
    ray_address: RayAddress = None,
    block_size: Annotated[
        str | None,
        typer.Option(
            help="What a worker gathers and encodes at once, as 4GB. Takes six times that of temporary disk a worker. "
            "Default: up to 1 GiB from object stores, 64 MiB from disks."
        ),
    ] = None,
    scratch: Annotated[
        str | None,
        typer.Option(
            help="Folder in which frames from object stores are shuffled, so that each unit is read once. Default: "
            "under TMPDIR; with --ray-address Ray's object store."
        ),
    ] = None,
    scratch_size: Annotated[
        str | None,
        typer.Option(
            help="How much may lie there, as 500GB: the larger, the fewer requests, up to the bytes of all targets. "
            "0: no shuffle. Default: two fifths of what is free."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the shard set in --out.")] = False,
    allow_http: AllowHttp = False,
    json_output: Json = False,
) -> None:
    """Join audio, text and targets into WebDataset tar files for training.

    Equal inputs give equal bytes. `index.json` is written last: without it the set is not complete. After a kill
    the same command goes on behind the last finished tar.

    Examples:

      coat build-shards --manifest corpus.jsonl --store targets --experts pitch,vad,whisper --out shards

      coat build-shards --manifest speech.jsonl --manifest music.jsonl --weights 1,0.5 --layout sidecar
      --max-seconds 30 --store targets --experts pitch,whisper --out shards --workers 8

      coat build-shards --manifest corpus.jsonl --store targets --experts pitch,whisper,yamnet --out small
      --rate whisper=25 --pca whisper=192 --dtype int8 --topk yamnet=10
    """
    from coat.pipeline.reductions.options import ReductionOptions
    from coat.pipeline.shards.build import build_shards as run

    scratch_bytes = None
    if scratch_size is not None:
        scratch_bytes = 0 if scratch_size == "0" else parse_bytes("--scratch-size", scratch_size)
    with progress(None, "samples", "build-shards", quiet=json_output) as advance:
        index = run(
            manifest,
            store,
            comma_separated(experts),
            out,
            shard_size=parse_bytes("--shard-size", shard_size),
            missing=missing,  # pyright: ignore[reportArgumentType]  checked there, as are layout and audio
            seed=seed if shuffle else None,
            workers=workers,
            ray_address=ray_address,
            overwrite=overwrite,
            on_planned=lambda samples: advance(0, total=samples),
            on_shard=lambda built: advance(built.info.samples),
            layout=layout,  # pyright: ignore[reportArgumentType]
            audio=audio,  # pyright: ignore[reportArgumentType]
            sample_rate=sample_rate,
            filter=filter,
            weights=parse_weights(weights) if weights else (),
            max_seconds=max_seconds,
            reduction_options=ReductionOptions.parse(rate, pca, whiten, dtype, scale, topk),
            block_bytes=parse_bytes("--block-size", block_size) if block_size else None,
            scratch=scratch,
            scratch_bytes=scratch_bytes,
            on_note=lambda note: typer.echo(note, err=True),
        )
    if json_output:
        typer.echo(json.dumps(index.to_dict(), indent=2))
        return
    show_index(index, out)


@app.command("add-expert")
def add_expert(
    shards: ShardsPath,
    store: Store,
    expert: Annotated[str, typer.Option(help="Name; name@fingerprint where the store has several.")],
    missing: Annotated[
        str, typer.Option(help="Samples that lack a target: fail, or mask (they go without it).")
    ] = "fail",
    rate: Rate = None,
    pca: Pca = None,
    whiten: Whiten = None,
    dtype: Dtype = None,
    scale: Scale = None,
    topk: TopK = None,
    workers: Workers = 0,
    ray_address: RayAddress = None,
    json_output: Json = False,
) -> None:
    """Add one expert to a shard set, in tar files of its own. No file of the set is changed.

    Example:

      coat shards add-expert shards --store targets --expert clap
    """
    from coat.pipeline.reductions.options import ReductionOptions
    from coat.pipeline.shards.sidecars import add_expert as run

    with progress(None, "samples", "add-expert", quiet=json_output) as advance:
        index = run(
            shards,
            store,
            expert,
            missing=missing,  # pyright: ignore[reportArgumentType]  checked there
            workers=workers,
            ray_address=ray_address,
            on_shard=lambda info: advance(info.samples),
            reduction_options=ReductionOptions.parse(rate, pca, whiten, dtype, scale, topk),
        )
    if json_output:
        side = index.sidecars[expert.partition("@")[0]]
        typer.echo(json.dumps(side.to_dict(), indent=2))
        return
    show_index(index, shards)


@app.command("stats")
def stats(
    shards: ShardsPath,
    student: Annotated[
        str | None, typer.Option(help="Folder or hub id of a student, whose tokenizer counts the tokens of the texts.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Show the hours, samples and tokens of a shard set, and its targets by expert.

    Example:

      coat shards stats shards --student students/qwen2-audio
    """
    from coat.pipeline.shard_checks.stats import shard_stats

    found = shard_stats(shards, tokens_counter(student) if student else None)
    if json_output:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    hours = duration_text(found.hours * 3600)
    lengths = f"{found.shortest_s:.2f} to {found.longest_s:.2f} s"
    pieces = f", {found.pieces} of them pieces of longer utterances" if found.pieces else ""
    typer.echo(f"{hours} of audio in {found.samples} samples of {lengths}{pieces}; {found.left_out} left out")
    typer.echo(f"{found.shards} shards, {bytes_text(found.bytes)}")
    tokens = f", {found.text_tokens:,} tokens" if found.text_tokens is not None else ""
    typer.echo(f"audio tokens about {found.audio_tokens:,}; texts {found.characters:,} characters{tokens}")
    rows = [
        [name, e.samples, e.missing, f"{e.frames:,}", f"{e.frames_per_second:g}", bytes_text(e.bytes)]
        for name, e in found.experts.items()
    ]
    table("Targets", ["expert", "samples", "missing", "frames", "frames/s", "bytes"], rows)


def tokens_counter(student: str) -> Callable[[str], int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def show_index(index: "ShardIndex", out: str) -> None:
    rows = [
        [name, e.spec.fingerprint, e.spec.dim, f"{e.spec.rate_hz:g}", e.samples, f"{e.frames:,}"]
        for name, e in index.experts.items()
    ]
    table(f"Shards in {out}", ["expert", "fingerprint", "dim", "frames/s", "samples", "frames"], rows)
    show_reductions(index)
    typer.echo(
        f"{len(index.shards)} shards, {index.samples} samples ({index.skipped} left out), "
        f"{duration_text(index.seconds)} of audio, {bytes_text(index.bytes)}"
    )


def show_reductions(index: "ShardIndex") -> None:
    """What was made smaller, and what is left of it on utterances that it was not fitted to."""
    rows = []
    for name, e in index.experts.items():
        if not e.reduction or not e.fidelity:
            continue
        before, after = (e.fidelity[k] for k in ("bytes_per_hour_before", "bytes_per_hour"))
        as_float32 = 4 * e.reduction.dim * e.reduction.source_hz * 3600
        kept = e.fidelity["original"]
        agreement = [kept["cosine"], kept["cosine_p5"], kept["relative_error"], kept["explained_variance"]]
        sizes = [bytes_text(before), bytes_text(after), f"1/{as_float32 / after:.1f}"]
        rows.append([name, e.reduction.summary(), *sizes, *(f"{value:.4f}" for value in agreement)])
    if rows:
        heads = ["expert", "stored", "an hour: before", "after", "of float32", "cosine", "p5", "rel. error", "variance"]
        table("Reductions, decoded against what was extracted", heads, rows)
        fitted = [e for e in index.experts.values() if e.fidelity and e.reduction and e.reduction.is_fitted]
        if not all(e.fidelity["apart"] for e in fitted if e.fidelity):
            typer.echo("few targets: measured on utterances that the reduction was fitted to")


def parse_weights(text: str) -> list[float]:
    """A number for each manifest: `1,0.5`."""
    from coat.manifests.errors import InputError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as e:
        raise InputError(f"--weights {text}: expected a number for each --manifest, as 1,0.5") from e
