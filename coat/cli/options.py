"""Options that several commands share, and how their values are read."""

import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from coat.extractors.expert import Options

Experts = Annotated[
    list[str],
    typer.Option(
        "--expert",
        help="Name from [bold]coat experts[/bold], package.module:Class, or file.py:Class. Repeat for several.",
    ),
]
ManifestPath = Annotated[
    str,
    typer.Option(
        "--manifest", help="Manifest: JSONL or Parquet, or the parts of one: a folder or 'part-*.jsonl'; path or URL."
    ),
]
Store = Annotated[str, typer.Option("--store", help="Target store: folder or URL (s3://...).")]
Checkpoint = Annotated[
    str | None,
    typer.Option(help="Weights: hub id (org/name, org/name@revision), folder or file. Default: the expert's own."),
]
Layer = Annotated[str | None, typer.Option(help="Layer whose states are taken, for experts that have layers.")]
Dtype = Annotated[str, typer.Option(help="Of the stored frames: float16 or float32.")]
Precision = Annotated[str, typer.Option(help="Of the computation: float32, bfloat16 or float16.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model (torch.compile); pays on long runs.")]
PadMargin = Annotated[
    float | None,
    typer.Option(
        help="Pad a clip by so many seconds instead of to 30 s (whisper). Faster; inexact, see docs/experts.md."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for machines.")]
RunStep = Annotated[
    str | None,
    typer.Option(
        "--step",
        help="Checkpoint: its step, or best (by run.best). Default: the finished student, or else the newest.",
    ),
]
RayAddress = Annotated[
    str | None, typer.Option(help="Ray cluster to use: auto, or ray://host:port.", envvar="COAT_RAY_ADDRESS")
]
Workers = Annotated[
    int,
    typer.Option(help="Processes at once (on a Ray cluster: tasks); 0 works in this process.", min=0),
]


def allow_http(allowed: bool) -> bool:
    if allowed:
        from coat.manifests.storage import http

        http.allow()
    return allowed


AllowHttp = Annotated[
    bool,
    typer.Option("--allow-http", callback=allow_http, help="Read audio of web servers, too, where the manifest says."),
]

BYTES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def expert_options(
    checkpoint: str | None, layer: str | None, dtype: str, precision: str, compile: bool, pad_margin: float | None
) -> "Options":
    from coat.extractors.expert import Options

    return Options(
        checkpoint=checkpoint, layer=layer, dtype=dtype, precision=precision, compile=compile, pad_margin=pad_margin
    )


def parse_batch_seconds(text: str | None) -> "float | Literal['auto'] | None":
    """InputError unless it is a number of seconds above 0, or `auto`."""
    from coat.manifests.errors import InputError

    if text is None or text == "auto":
        return text
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise InputError(f"--batch-seconds {text}: expected a number of seconds above 0, or auto")


def comma_separated(text: str) -> list[str]:
    """Names with commas, without blanks around them."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_bytes(flag: str, text: str) -> int:
    """`256MB`, `1.5 GB`, `900k`: powers of 1000; `24GiB`: of 1024. InputError otherwise, with the flag's name."""
    from coat.manifests.errors import InputError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if not match or match[2] not in BYTES or not float(match[1]):
        raise InputError(f"{flag} {text}: expected a size such as 80GB, 256MB or 24GiB")
    return round(float(match[1]) * BYTES[match[2]])
