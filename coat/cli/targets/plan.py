"""`coat plan`."""

import json
from typing import Annotated, Any

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
    Store,
    expert_options,
)
from coat.cli.output import bytes_text, duration_text, table


def plan(
    expert: Experts,
    manifest: ManifestPath,
    store: Store,
    checkpoint: Checkpoint = None,
    layer: Layer = None,
    dtype: Dtype = "float16",
    precision: Precision = "float32",
    compile: Compile = False,
    pad_margin: PadMargin = None,
    speed: Annotated[
        float | None, typer.Option(help="Audio seconds per second of one worker, to tell how long it takes.", min=0.001)
    ] = None,
    calibrate: Annotated[
        int,
        typer.Option(help="Or measure that: run the expert on so many clips of all lengths, on this machine.", min=0),
    ] = 0,
    workers: Annotated[int, typer.Option(help="Workers that the time is divided by.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="Of the measurement: auto, cpu or cuda.")] = "auto",
    gpus_per_worker: Annotated[float, typer.Option(help="Share of a GPU that a worker takes.", min=0.01)] = 1.0,
    gpu_hour_price: Annotated[
        float | None, typer.Option(help="Price of a GPU for an hour, to tell the cost.", min=0.0)
    ] = None,
    unit_bytes: Annotated[int | None, typer.Option(help="As for the extract: bytes of a unit, at most.", min=1)] = None,
    allow_http: AllowHttp = False,
    json_output: Json = False,
) -> None:
    """Predict the time, bytes and cost of an extraction.

    Nothing is written. --calibrate measures on this machine, with all its CPUs or its GPU: use one like a worker's.

    Examples:

      coat plan --expert whisper --manifest corpus.jsonl --store targets --speed 400

      coat plan --expert pitch --manifest corpus.jsonl --store targets --calibrate 32 --workers 16
    """
    from coat.manifests.corpus.manifest import Manifest
    from coat.pipeline.cluster.resources import Resources, choose_cluster
    from coat.pipeline.extraction.extraction import check_one_checkpoint
    from coat.pipeline.plan.planning import UNIT_BYTES
    from coat.pipeline.status.forecast import ForecastOptions, forecast, total

    check_one_checkpoint(checkpoint, expert)
    _, chosen = choose_cluster(Resources(workers=0, device=device))
    forecast_options = ForecastOptions(
        speed=speed,
        calibrate=calibrate,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        gpu_hour_price=gpu_hour_price,
        device=chosen,
        unit_bytes=unit_bytes or UNIT_BYTES,
    )
    corpus = Manifest.read(manifest, spans=True, on_disk=True)
    found = forecast(
        corpus,
        store,
        expert,
        expert_options(checkpoint, layer, dtype, precision, compile, pad_margin),
        forecast_options,
    )
    whole = total(found)
    if json_output:
        typer.echo(json.dumps({"experts": [f.to_dict() for f in found], "total": whole}, indent=2))
        return
    rows = [
        [f.expert, f.fingerprint, f.rows, f.covered, f.units, f"{f.hours:.2f}", bytes_text(f.bytes)]
        + [f"{f.speed:.0f}" if f.speed else "-", *time_and_cost(f.seconds, f.cost)]
        for f in found
    ]
    if len(found) > 1:
        rows.append(["total", "", "", "", whole["units"], f"{whole['hours']:.2f}", bytes_text(whole["bytes"]), ""])
        rows[-1] += time_and_cost(whole["seconds"], whole["cost"])
    columns = ["expert", "fingerprint", "rows", "covered", "units", "hours", "bytes", "RTFx of a worker", "time"]
    table("To do", [*columns, "cost"], rows)


def time_and_cost(seconds: float | None, cost: float | None) -> list[Any]:
    took = "give --speed or --calibrate" if seconds is None else duration_text(seconds)
    return [took, "-" if cost is None else f"{cost:.2f}"]
