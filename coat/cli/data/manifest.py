"""`coat manifest`: make, check, describe and split manifests."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.options import AllowHttp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coat.manifests.errors import Problem

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Create, check, describe and split manifests.")

BAD_INPUT = 2  # exit code
SHOWN = 20  # problems on a terminal; --json gives all

ManifestPath = Annotated[
    str,
    typer.Argument(
        help="The manifest: a .jsonl, .jsonl.gz or .parquet file, a folder or a pattern of its parts; path or URL."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, with all problems.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A folder of audio, or a file, folder or pattern of another form.")],
    out: Annotated[str, typer.Argument(help="The manifest to write, such as data/manifest.jsonl.")],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="folder, jsonl (NeMo), csv, parquet, dataset, swift, kaldi, lhotse, lhotse-recordings, shar, "
            "webdataset, nemo-tarred or shards; else by its looks.",
        ),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="NATIVE=COLUMN", help="Take a key from a column, as in text=utterance. Repeatable."
        ),
    ] = None,
    audio_root: Annotated[
        str | None, typer.Option(help="What relative audio paths count from; else the folder of the source.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Take one split alone, as train; else all, each row with its `split`.")
    ] = None,
    channel: Annotated[
        str, typer.Option(help="Of several channels: mix (their mean), a number from 0, or each as a row of its own.")
    ] = "mix",
    probe: Annotated[bool, typer.Option(help="Read durations that are missing from the audio's headers.")] = True,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave bad rows out, instead of writing nothing.")
    ] = False,
    copy: Annotated[
        bool, typer.Option("--copy", help="Write audio out of tars and tables to files beside the manifest.")
    ] = False,
    tars: Annotated[
        str, typer.Option(metavar="PATTERN", help="The tars of a NeMo manifest; else audio_0.tar, ... beside it.")
    ] = "",
    tar_in_id: Annotated[
        bool, typer.Option("--tar-in-id", help="Begin ids with the name of their tar, where tars have equal keys.")
    ] = False,
    allow_http: AllowHttp = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert a corpus in another format to a manifest.

    Columns are found by their usual names (audio_filepath, path, wav, ...;
    text, sentence, transcript, ...; prompt, question, ...); everything else
    is kept under its own name. Audio below the manifest's folder is named
    relative to it, so that both can move together. What lies in tars is read
    in place.

    Examples:

      coat manifest import recordings/ recordings/manifest.jsonl

      coat manifest import cv/train.tsv cv/m.jsonl --audio-root cv/clips

      coat manifest import qa.csv qa.jsonl --map prompt=ask --map response=gold

      coat manifest import train.parquet data/train.jsonl

      coat manifest import cuts.jsonl.gz manifest.jsonl  (Lhotse)

      coat manifest import 's3://b/train-{000..063}.tar' m.jsonl  (WebDataset)

      coat manifest import tarred_audio_manifest.json m.jsonl  (NeMo)

      coat manifest import calls/ calls.jsonl --channel each  (a speaker a channel)
    """
    from coat.cli.progress import progress
    from coat.manifests.errors import InputError
    from coat.manifests.sources.channels import parse_channel
    from coat.manifests.sources.importing import import_manifest

    column_map = {}
    for item in mapping or []:
        native, equals, column = item.partition("=")
        if not (native and equals and column):
            raise InputError(f"--map {item}: expected NATIVE=COLUMN, as in text=utterance")
        column_map[native] = column
    remedy = f"{out} is not written; correct the rows, or leave them out: --skip-bad"
    with bad_rows(json, remedy), progress(None, "rows", "importing", quiet or json) as advance:
        done = import_manifest(
            source,
            out,
            format=form,
            column_map=column_map,
            audio_root=audio_root,
            split=split,
            channel=parse_channel(channel),
            read_headers=probe,
            skip_bad=skip_bad,
            copy=copy,
            tars=tars,
            tar_in_id=tar_in_id,
            advance=advance,
        )
    result = {"path": out, "format": done.format, "rows": done.rows, "seconds": done.seconds, "notes": list(done.notes)}
    report(done.problems, json, result)
    if not json:
        left_out = f", {len(done.problems)} bad rows left out" if done.problems else ""
        typer.echo(f"{out}: {done.rows} utterances, {done.seconds / 3600:.2f} h, from {done.format}{left_out}")
        for note in done.notes:
            typer.echo(note)


@app.command()
def validate(
    manifest: ManifestPath,
    deep: Annotated[
        bool, typer.Option(help="Decode all audio: finds files that are cut short, damaged or NaN.")
    ] = False,
    allow_http: AllowHttp = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check the rows and audio files of a manifest: one line per problem, exit code 2 where there is one.

    Examples:

      coat manifest validate data/manifest.jsonl  (reads headers)

      coat manifest validate data/manifest.jsonl --deep  (decodes everything)
    """
    from coat.cli.progress import progress
    from coat.manifests.corpus.validate import validate_manifest

    with progress(None, "rows", "decoding" if deep else "reading headers", quiet or json) as advance:
        problems = validate_manifest(manifest, deep=deep, advance=advance)
    report(problems, json, {"path": manifest, "deep": deep, "valid": not problems})
    if problems:
        raise typer.Exit(BAD_INPUT)
    if not json:
        typer.echo(f"{manifest}: no problems")


@app.command()
def stats(
    manifest: ManifestPath,
    probe: Annotated[
        bool, typer.Option(help="Read headers: sample rates, channels, formats, missing durations.")
    ] = True,
    allow_http: AllowHttp = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Describe a corpus: hours, durations, formats, and rows without text, prompt or response.

    Examples:

      coat manifest stats data/manifest.jsonl

      coat manifest stats data/manifest.jsonl --no-probe --json  (rows alone, no audio)
    """
    from coat.cli.progress import progress
    from coat.manifests.corpus.stats import manifest_stats, render_stats

    with bad_rows(json), progress(None, "files", "reading headers", quiet or json) as advance:
        found = manifest_stats(manifest, read_headers=probe, advance=advance)
    typer.echo(to_json(found.to_dict()) if json else render_stats(found))


@app.command()
def split(
    manifest: ManifestPath,
    shares: Annotated[
        list[str], typer.Argument(metavar="NAME=SHARE...", help="Parts and their shares, which sum to 1.")
    ],
    by: Annotated[
        str, typer.Option(help="What stays together: audio, a key such as speaker (audio does too), or id.")
    ] = "audio",
    seed: Annotated[int, typer.Option(help="Another seed, another split.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the parts; else beside the manifest.")] = None,
    allow_http: AllowHttp = False,
    json: Json = False,
) -> None:
    """Split a manifest into parts that share no audio file: MANIFEST.PART.jsonl for each.

    Groups are dealt out by hash: rows that are added later do not move the
    others, and parts have their shares roughly.

    Examples:

      coat manifest split data/all.jsonl train=0.9 valid=0.1

      coat manifest split data/all.jsonl train=0.9 test=0.1 --by speaker
    """
    from coat.manifests.corpus.split import split_manifest
    from coat.manifests.errors import InputError

    parts: dict[str, float] = {}
    for item in shares:
        name, _, share = item.partition("=")
        try:
            parts[name] = float(share)
        except ValueError as e:
            raise InputError(f"{item}: expected NAME=SHARE, as in train=0.9") from e
    with bad_rows(json):
        written = split_manifest(manifest, parts, by=by, seed=seed, out_dir=str(out) if out else None)
    if json:
        from dataclasses import asdict

        typer.echo(to_json({"parts": [asdict(p) for p in written]}))
        return
    for p in written:
        typer.echo(f"{p.path}: {p.rows} utterances, {p.seconds / 3600:.2f} h")


@app.command()
def synthetic(
    out: Annotated[str, typer.Argument(help="Folder for the clips and their manifests.")],
    clips: Annotated[int, typer.Option(help="Clips, a fifth of them held out.")] = 600,
    seed: Annotated[int, typer.Option(help="Another seed, other clips; equal ones give equal bytes.")] = 0,
) -> None:
    """Make a small corpus with known truth: clips of 2 to 3 s, a question about each.

    OUT/audio, OUT/train.jsonl, OUT/heldout.jsonl and OUT/manifest.jsonl, which is both.

    Example:

      coat manifest synthetic listening --clips 600
    """
    from coat.manifests.corpus.synthesis import make_corpus

    typer.echo(f"{make_corpus(out, seed=seed, clips=clips)}: {clips} utterances")


@contextmanager
def bad_rows(json: bool, remedy: str = "") -> "Iterator[None]":
    """A manifest with bad rows ends the command with a line for each."""
    from coat.manifests.errors import ManifestError

    try:
        yield
    except ManifestError as e:
        report(e.problems, json, {}, remedy)
        raise typer.Exit(BAD_INPUT) from e


def report(problems: "Sequence[Problem]", json: bool, result: dict[str, Any], remedy: str = "") -> None:
    """The first problems as lines on stderr; with `json` the result with all of them on stdout."""
    if json:
        from dataclasses import asdict

        typer.echo(to_json({**result, "problems": [asdict(p) for p in problems]}))
        return
    for p in problems[:SHOWN]:
        typer.echo(str(p), err=True)
    if len(problems) > SHOWN:
        typer.echo(f"... and {len(problems) - SHOWN} more; --json gives all {len(problems)}", err=True)
    if problems and remedy:
        typer.echo(f"error: {remedy}", err=True)


def to_json(value: dict[str, Any]) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, indent=2)
