"""`coat extract`."""

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.options import (
    AllowHttp,
    Checkpoint,
    Compile,
    Dtype,
    Experts,
    Json,
    Layer,
    ManifestPath,
    PadMargin,
    Precision,
    RayAddress,
    Store,
    expert_options,
    parse_batch_seconds,
)
from coat.cli.output import bytes_text, duration_text, table
from coat.cli.progress import Advance, progress

if TYPE_CHECKING:
    from coat.pipeline.extraction.summary import Summary
    from coat.pipeline.plan.planning import ExtractionPlan
    from coat.pipeline.worker.report import UnitReport


def extract(
    expert: Experts,
    manifest: ManifestPath,
    store: Store,
    checkpoint: Checkpoint = None,
    layer: Layer = None,
    dtype: Dtype = "float16",
    precision: Precision = "float32",
    compile: Compile = False,
    pad_margin: PadMargin = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Ray actors; 0 runs in this process. Default: one per GPU, or per 4 CPUs.", min=0),
    ] = None,
    ray_address: RayAddress = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    gpus_per_worker: Annotated[
        float, typer.Option(help="Share of a GPU: 0.5 puts two workers on one.", min=0.01)
    ] = 1.0,
    cpus_per_worker: Annotated[float | None, typer.Option(help="CPUs that a worker takes of Ray.", min=0.1)] = None,
    batch_seconds: Annotated[
        str | None,
        typer.Option(
            help="Padded seconds of audio in a forward pass. auto: measured on the worker's device up to its memory, "
            "once, and recorded in the target set. Default: the expert's own."
        ),
    ] = None,
    decode_threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of a worker that read and decode audio. Default: its CPUs; beside a GPU, all of its node's.",
            min=1,
        ),
    ] = None,
    share_decode: Annotated[
        bool,
        typer.Option(
            "--share-decode",
            help="Run all experts in one pass over the corpus: each clip is read and decoded once. Every worker holds "
            "the models of all experts at once (on a GPU, all of them in its --gpus-per-worker share) and the decoded "
            "clips that some expert still waits for. Frames are the same; each expert's commits stay its own.",
        ),
    ] = False,
    max_workers: Annotated[
        int | None, typer.Option(help="Hire up to so many as the Ray cluster grows; --workers are asked for at once.")
    ] = None,
    unit_deadline: Annotated[
        float | None,
        typer.Option(
            help="Seconds without news of a unit after which its worker is given up, and the row that hangs is "
            "looked for. Default: ten times what such a unit took so far, at least ten minutes; an hour before that.",
            min=0.1,
        ),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(
            help="Seconds for which audio that cannot be read (a share that went away, rights that expired) is tried "
            "again, before its unit is given up: then another worker tries it, or the run stops.",
            min=0.0,
        ),
    ] = 30.0,
    accept_missing: Annotated[
        bool,
        typer.Option(
            "--accept-missing",
            help="Audio files are really gone: record their rows as missing. Without it, a file counts as missing only "
            "where others of its folder are there; else the run stops, because the share may be what is gone.",
        ),
    ] = False,
    only: Annotated[str | None, typer.Option(help="File of ids, one a line: only these rows are extracted.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many rows of the manifest (or of --only).", min=1)
    ] = None,
    unit_bytes: Annotated[
        int | None, typer.Option(help="Bytes of targets in a unit, at most. Default: 128 MiB.", min=1)
    ] = None,
    shuffle_units: Annotated[
        bool, typer.Option("--shuffle-units", help="Any order, for a steadier ETA. Default: longest rows first.")
    ] = False,
    max_failed: Annotated[
        str, typer.Option(help="Failed rows that are still a success (exit 0): a number, or a share as 1%.")
    ] = "0",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try rows again that failed before.")] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Decode all audio, and redo rows whose sound changed since.")
    ] = False,
    summary: Annotated[
        str | None, typer.Option(help="File to write the summary of --json to, beside what is printed.")
    ] = None,
    allow_http: AllowHttp = False,
    json_output: Json = False,
) -> None:
    """Run experts over a corpus and store their output, frame by frame.

    Finished work is never done twice: run the same command after a kill, or when the manifest grew.
    Exit codes: 0 done, 2 bad input, 3 finished but more rows failed than --max-failed allows.

    Examples:

      coat extract --expert pitch --expert vad --manifest corpus.jsonl --store targets

      coat extract --expert pitch --expert vad --expert mel --share-decode --manifest corpus.jsonl --store targets

      coat extract --expert whisper --checkpoint openai/whisper-large-v3 --manifest s3://b/corpus.jsonl
      --store s3://b/targets --ray-address auto --workers 16 --device cuda
    """
    from coat.manifests import storage
    from coat.manifests.corpus.manifest import Manifest
    from coat.pipeline.cluster.resources import Resources
    from coat.pipeline.extraction.extraction import RowSelection
    from coat.pipeline.extraction.extraction import extract as run
    from coat.pipeline.plan.planning import UNIT_BYTES

    found = Manifest.read(manifest, spans=True, on_disk=True)
    allowed = allowed_failures(max_failed, len(found))
    resources = Resources(
        workers=workers,
        ray_address=ray_address,
        device=device,
        gpus_per_worker=gpus_per_worker,
        cpus_per_worker=cpus_per_worker,
        max_workers=max_workers,
        batch_seconds=parse_batch_seconds(batch_seconds),
        decode_threads=decode_threads,
        unit_deadline=unit_deadline,
        share_decode=share_decode,
        patience_s=patience,
    )
    selection = RowSelection(
        retry_failed=retry_failed,
        refresh=refresh,
        accept_missing=accept_missing,
        only=read_ids(only) if only else None,
        limit=limit,
        unit_bytes=unit_bytes or UNIT_BYTES,
        shuffle=shuffle_units,
    )
    watcher = ProgressListener(quiet=json_output, together=len(set(expert)) if share_decode else 1)
    try:
        summaries = run(
            found,
            store,
            expert,
            expert_options(checkpoint, layer, dtype, precision, compile, pad_margin),
            resources,
            selection,
            listener=watcher,
        )
    finally:
        watcher.close()
    document = [s.to_dict() for s in summaries]
    if summary:
        storage.write_bytes(summary, storage.to_json(document))
    if json_output:
        typer.echo(json.dumps(document, indent=2))
    else:
        show_summaries(summaries)
    if any(s.failed > allowed for s in summaries):
        worst = max(s.failed for s in summaries)
        typer.echo(f"{worst} of {len(found)} rows failed; --max-failed allows {allowed}", err=True)
        raise typer.Exit(3)


def read_ids(path: str) -> frozenset[str]:
    """Ids of a text file, one a line. InputError where there is none."""
    from coat.manifests import storage
    from coat.manifests.errors import InputError

    try:
        ids = frozenset(storage.read_bytes(path).decode().split("\n")) - {""}
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"--only {path}: cannot be read ({e}); expected a text file of ids, one a line") from e
    if not ids:
        raise InputError(f"--only {path}: no ids; expected one a line")
    return ids


def allowed_failures(text: str, rows: int) -> int:
    """`3` rows, or a share: `1%`, `0.01`."""
    from coat.manifests.errors import InputError

    try:
        if text.isdigit():
            return int(text)
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        if not 0 <= share <= 1:
            raise ValueError
    except ValueError as e:
        raise InputError(f"--max-failed {text}: expected a number of rows, or a share from 0% to 100%") from e
    return int(rows * share)


class ProgressListener:
    """A progress bar for each expert, or for all that share a decode, and lines for what goes wrong."""

    def __init__(self, quiet: bool, together: int = 1) -> None:
        self.quiet, self.together = quiet, together  # `together`: experts of one pass
        self.failed = 0
        self.seconds = self.started = 0.0
        self.plans: list[ExtractionPlan] = []  # of experts whose bar is not there yet
        self.open = ExitStack()
        self.advance: Advance | None = None

    def planned(self, plan: "ExtractionPlan", covered: int) -> None:
        self.close()
        if covered:
            self.say(f"{plan.spec.expert}: {covered} of {plan.rows} rows are done already")
        self.plans.append(plan)
        if len(self.plans) < self.together:
            return
        left = [p for p in self.plans if p.units]
        self.plans = []
        if left:
            self.failed, self.seconds, self.started = 0, 0.0, time.monotonic()
            seconds, names = sum(p.seconds for p in left), ", ".join(p.spec.expert for p in left)
            self.advance = self.open.enter_context(progress(seconds, "s of audio", names, quiet=self.quiet))

    def reported(self, report: "UnitReport") -> None:
        self.failed += report.failed
        for error in report.errors:
            self.say(f"failed: {error}")
        if report.failed > len(report.errors):
            self.say(f"... and {report.failed - len(report.errors)} more rows of this unit; coat status --failed")
        self.seconds += report.audio_seconds
        rtfx = self.seconds / (time.monotonic() - self.started)
        if self.advance:
            note = f"{self.seconds / 3600:.2f} h, RTFx {rtfx:.0f}" + (f", {self.failed} failed" if self.failed else "")
            self.advance(report.audio_seconds, note=note)

    def say(self, line: str) -> None:
        if not self.quiet:
            typer.echo(line, err=True)

    def close(self) -> None:
        self.open.close()
        self.advance = None


def shared_line(summaries: "list[Summary]") -> str:
    """What sharing a decode has saved, in one line; empty where nothing was shared."""
    if not any(s.saved_clips or s.saved_requests for s in summaries):
        return ""
    clips, saved_clips = sum(s.clips_decoded for s in summaries), sum(s.saved_clips for s in summaries)
    seconds, saved_s = sum(s.decode_seconds for s in summaries), sum(s.saved_decode_seconds for s in summaries)
    requests, saved = sum(s.audio_requests for s in summaries), sum(s.saved_requests for s in summaries)
    return (
        f"shared decode: {clips:,} clips decoded in {seconds:,.1f} s with {requests:,} audio requests; "
        f"saved {saved_clips:,} clips, {saved_s:,.1f} s and {saved:,} requests"
    )


def show_summaries(summaries: "list[Summary]") -> None:
    columns = ["expert", "fingerprint", "ok", "failed", "skipped", "audio now", "RTFx", "frames", "bytes", "padding"]
    rows = [
        [s.expert, s.fingerprint, s.ok, s.failed, s.skipped, duration_text(s.audio_seconds)]
        + [f"{s.rtfx:.0f}" if s.units_done else "-", f"{s.frames:,}", bytes_text(s.bytes), f"{s.padding_share:.1%}"]
        for s in summaries
    ]
    table("Extracted", columns, rows)
    if line := shared_line(summaries):
        typer.echo(line)
    for s in summaries:
        if s.reasons:
            counts = ", ".join(f"{n} {reason}" for reason, n in s.reasons.items())
            typer.echo(f"{s.expert}: without targets: {counts} (coat status --failed lists them)")
        if s.halvings:
            settled = f" and came to {s.batch_seconds:g} s of audio" if s.batch_seconds is not None else ""
            typer.echo(f"{s.expert}: memory ran out; the batch budget was halved {s.halvings} times{settled}")
        for line in s.put_aside:
            if s is next(other for other in summaries if line in other.put_aside):  # of several experts, once
                typer.echo(f"{s.expert}: worker put aside: {line}")
        if s.worker_deaths:
            typer.echo(f"{s.expert}: {s.worker_deaths} workers were lost with units in hand; the units were run again")
        if s.units_elsewhere:
            typer.echo(f"{s.expert}: {s.units_elsewhere} units were done by another run meanwhile")
