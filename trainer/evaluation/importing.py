"""Official data of a benchmark to a manifest: `coat benchmark import`.

Records go through the importer of manifests: audio in tables is read where it lies, durations come from headers, and a
bad record is named with its file and row.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coat.manifests import InputError, storage
from coat.manifests.sources.column_names import AudioInPlace, EmbeddedAudio, audio_value
from coat.manifests.sources.durations import Advance
from coat.manifests.sources.formats import Format
from coat.manifests.sources.importing import ImportResult, import_manifest
from coat.trainer.evaluation.benchmark import Benchmark

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def import_benchmark(
    benchmark: Benchmark,
    source: str,
    out: str,
    *,
    audio_root: str | None = None,
    read_headers: bool = True,
    skip_bad: bool = False,
    advance: Advance | None = None,
) -> ImportResult:
    """Write the manifest `out`. `source`: a file, a folder, or the id of a data set on a hub.

    ManifestError lists every record that is none, and nothing is written; with `skip_bad` they are left out.
    """
    form = Format(
        read=benchmark.records,
        to_rows=lambda values: [to_manifest_row(benchmark, values)],
        takes="either",
    )
    return import_manifest(
        local_or_downloaded(source),
        out,
        format=form,
        audio_root=audio_root,
        read_headers=read_headers,
        skip_bad=skip_bad,
        advance=advance,
    )


def to_manifest_row(benchmark: Benchmark, values: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: value for key, value in benchmark.to_row(values).items() if value is not None}
    return row | {"audio_filepath": audio_value(row["audio_filepath"])}


def audio_address(value: Any, name: str) -> tuple[str, str]:
    """The address of what a record has as audio, and an id for a row that has none: what the audio was called, or
    `name`.

    ValueError where its bytes have no address.
    """
    audio = audio_value(value)
    if isinstance(audio, EmbeddedAudio):
        raise ValueError("its audio is bytes without an address; `coat benchmark import` writes a manifest with files")
    path = audio.path if isinstance(audio, AudioInPlace) else audio
    stem = path.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return (audio.address if isinstance(audio, AudioInPlace) else audio), stem or name


def local_or_downloaded(source: str) -> str:
    """The folder of a data set of a hub, where `source` is no path and looks like its id. InputError where none is to
    be had."""
    if len(storage.expand(source)) > 1 or storage.exists(source) or not HUB_ID.fullmatch(source):
        return source
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return str(Path(snapshot_download(source, repo_type="dataset")))
    except RepositoryNotFoundError as e:
        raise InputError(f"{source}: no such file or folder, and no data set of that name on the hub") from e
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
        raise InputError(f"{source}: no such file or folder; and no hub is reached for a data set of that name") from e
