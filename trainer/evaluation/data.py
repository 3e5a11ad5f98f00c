"""The rows of a benchmark: from a manifest, or from the official file itself."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from coat.manifests import AudioError, Manifest, Problem, Utterance, probe, storage
from coat.manifests.corpus.parsing import parse_row
from coat.manifests.errors import InputError, ManifestError
from coat.manifests.sources.formats import JSON
from coat.trainer.evaluation.benchmark import Benchmark, read_records
from coat.trainer.evaluation.importing import audio_address

HEADERS_AT_ONCE = 16


def read_rows(benchmark: Benchmark, path: str, audio_root: str | None = None) -> list[Utterance]:
    """Rows that ask something, in their order. ManifestError lists every row that is none.

    Audio of an official file counts from `audio_root`, or from where the file lies.
    """
    rows = list(Manifest.read(path)) if is_manifest(path) else import_rows(benchmark, path, audio_root)
    asked = [row for row in rows if row.prompt is not None or (row.text is not None and not row.text_only)]
    if not asked:
        raise InputError(f"{path}: no row has a prompt or a text; there is nothing to ask")
    if twice := [name for name, count in Counter(row.id for row in asked).items() if count > 1]:
        raise InputError(f"{path}: {len(twice)} ids stand there twice, such as {twice[0]}; give each row its own")
    return asked


def is_manifest(path: str) -> bool:
    """By its first record; a folder, a pattern or a file of another kind is what the importer reads."""
    if len(storage.expand(path)) > 1:
        return True
    if storage.exists(path) and not is_file_of_rows(path):
        return False
    return any("audio_filepath" in r.values for r in islice(read_records(path), 1))


def is_file_of_rows(path: str) -> bool:
    return path.lower().removesuffix(".gz").endswith((*JSON, ".parquet"))


def import_rows(benchmark: Benchmark, path: str, audio_root: str | None) -> list[Utterance]:
    """Of the official records. ManifestError lists every one that is refused."""
    root = storage.absolute(audio_root or (path if storage.list_names(path) else storage.parent(path)))
    rows: list[Utterance] = []
    problems: list[Problem] = []
    for record in benchmark.records(path):
        if record.note:
            continue
        try:
            if record.problem:
                raise ValueError(record.problem)
            row = {key: value for key, value in benchmark.to_row(record.values).items() if value is not None}
            audio, name = audio_address(row["audio_filepath"], f"{record.row:08d}")
            rows.append(parse_row({"id": name, **row, "audio_filepath": audio}, root, record.row))
        except InputError:
            raise
        except (ValueError, KeyError, TypeError) as e:
            message = f"no {e}" if isinstance(e, KeyError) else str(e)
            problems.append(Problem(record.file, record.row, message))
    if problems:
        raise ManifestError(problems)
    return rows


def seconds_of(rows: Sequence[Utterance]) -> list[float]:
    """Of what each row's audio is; 0 where its header cannot be read, which asking it will say."""
    return list(storage.in_parallel(row_seconds, rows, HEADERS_AT_ONCE))


def row_seconds(row: Utterance) -> float:
    if row.duration is not None:
        return row.duration
    try:
        return max(0.0, probe(row.audio).seconds - row.offset)
    except AudioError:
        return 0.0


def hours(rows: Sequence[Utterance]) -> float:
    return math.fsum(row.duration or 0.0 for row in rows) / 3600
