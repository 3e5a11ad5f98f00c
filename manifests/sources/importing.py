"""Corpora in other forms to a manifest."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from coat.manifests import storage
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import probe
from coat.manifests.corpus.columns import TEXT, append_offsets, fill_ids
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.parsing import parse_row
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError, ManifestError, Problem
from coat.manifests.sources.column_names import Columns, Embedded, check_chosen
from coat.manifests.sources.embedded_audio import EmbeddedAudio
from coat.manifests.sources.formats import FOLDERS, FORMATS, Format, detect_format

PROBE_THREADS = 8  # reading headers waits for disks more than it computes
Advance = Callable[[int, int], None]  # so many more are done, of so many


@dataclass(frozen=True)
class Imported:
    """What an import did. `problems` are rows that were left out, with `skip_bad`."""

    path: str
    format: str
    rows: int
    seconds: float
    problems: tuple[Problem, ...] = ()


def import_manifest(
    source: str,
    out: str,
    *,
    format: str | None = None,
    chosen: Mapping[str, str] | None = None,
    audio_root: str | None = None,
    read_headers: bool = True,
    skip_bad: bool = False,
    advance: Advance | None = None,
) -> Imported:
    """Write the manifest `out` (JSONL) of a corpus in another form.

    Relative audio paths count from `audio_root`, or else from where the source lies. Audio that lies below
    the folder of `out` is named relative to it, so that both can move together. `chosen` maps native keys
    to columns. ManifestError lists every bad row, and nothing is written; with `skip_bad` they are left out.
    `advance(1, files)` is called after each header.
    """
    check_chosen(chosen or {})
    if not storage.exists(source):
        raise InputError(f"{source}: no such file or folder")
    form = format or detect_format(source)
    if form not in FORMATS:
        raise InputError(f"--format {form}: no such format; expected one of {', '.join(FORMATS)}")
    if form != "parquet" and os.path.isdir(source) != (form in FOLDERS):
        raise InputError(f"{source}: expected a {'folder' if form in FOLDERS else 'file'} for --format {form}")
    if os.path.isdir(out):
        raise InputError(
            f"{out}: is a folder; expected the name of the manifest to write, such as {out}/manifest.jsonl"
        )
    if storage.absolute(source) == storage.absolute(out):
        raise InputError(f"{out}: would replace its own source; give another name")
    root = audio_root or (source if os.path.isdir(source) else storage.parent(source))
    reader = RecordReader(FORMATS[form], chosen or {}, root, EmbeddedAudio(out), storage.parent(storage.absolute(out)))
    utterances = reader.read(source)
    problems = reader.problems
    if read_headers:
        utterances, unreadable = fill_durations(utterances, reader.places, advance)
        problems += unreadable
    if not utterances and not problems:
        raise InputError(f"{source}: no audio found; expected {form} with at least one row")
    if problems and not (skip_bad and utterances):
        raise ManifestError(problems)
    manifest = Manifest(utterances, out)
    manifest.write(out)
    return Imported(out, form, len(manifest), manifest.seconds, tuple(problems))


@dataclass
class RecordReader:
    """Records to utterances, with a problem for each that cannot be one."""

    format: Format
    chosen: Mapping[str, str]
    root: str  # what relative audio paths count from
    audio: EmbeddedAudio
    out_folder: str  # absolute
    problems: list[Problem] = field(default_factory=list)
    places: dict[int, Problem] = field(default_factory=dict)  # by position in the manifest: where a row came from

    def read(self, source: str) -> list[Utterance]:
        utterances: list[Utterance] = []
        ids: dict[str, str] = {}
        seen: Counter[str] = Counter()
        for record in self.format.read(source):
            place = Problem(record.file, record.row, record.problem)
            seen.update(record.values.keys())
            if record.problem:
                self.problems.append(place)
                continue
            try:
                for row in self.to_rows(record.values):
                    u = self.utterance(row, len(utterances) + 1)
                    if u.id in ids:
                        raise ValueError(f"id {u.id!r} is also that of {ids[u.id]}; ids must be unique")
                    ids |= {u.id: f"row {record.row}"} if u.id else {}
                    self.places[len(utterances)] = place
                    utterances.append(u)
            except (ValueError, KeyError) as e:
                message = f"no {e}" if isinstance(e, KeyError) else str(e)
                self.problems.append(replace(place, message=message))
        for native, column in self.chosen.items():
            if column not in seen:
                raise InputError(f"--map {native}={column}: {source} has no such column; it has {', '.join(seen)}")
        return self.with_ids(utterances)

    def with_ids(self, utterances: list[Utterance]) -> list[Utterance]:
        stems = pa.array([self.id_from_path(u) for u in utterances], TEXT)
        stems = append_offsets(stems, np.array([u.offset for u in utterances], np.float64))
        names = fill_ids(pa.array([u.id for u in utterances], TEXT), stems).to_pylist()
        return [replace(u, id=name) for u, name in zip(utterances, names, strict=True)]

    def to_rows(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self.format.to_rows:
            return self.format.to_rows(values)
        return [Columns.detect(values, self.chosen).to_native(values)]

    def utterance(self, row: dict[str, Any], position: int) -> Utterance:
        """Through `parse_row`, so that what is written can be read."""
        audio = row["audio_filepath"]
        if isinstance(audio, Embedded):
            audio = self.audio.save(audio, str(row.get("id", "")) or f"row-{position:08d}")
        else:
            audio = storage.absolute(storage.resolve(self.root, audio))
        return parse_row(row | {"audio_filepath": self.path_in_manifest(audio)}, self.out_folder, position)

    def path_in_manifest(self, audio: str) -> str:
        """An absolute path as the manifest has it: relative where it lies below the manifest's folder."""
        below = self.out_folder.rstrip("/") + "/"
        return audio.removeprefix(below) if audio.startswith(below) else audio

    def id_from_path(self, u: Utterance) -> str:
        """An id for a row without one: its path below the corpus, without the suffix."""
        path = storage.absolute(u.audio)
        for folder in (self.audio.folder, storage.absolute(self.root)):
            if path.startswith(folder.rstrip("/") + "/"):
                return path[len(folder.rstrip("/")) + 1 :].rsplit(".", 1)[0]
        return u.audio_filepath.rsplit(".", 1)[0]


def fill_durations(
    utterances: list[Utterance], places: Mapping[int, Problem], advance: Advance | None
) -> tuple[list[Utterance], list[Problem]]:
    """Durations from the headers where rows have none, and a problem for each header that cannot be read."""
    wanted = list(dict.fromkeys(u.audio for u in utterances if u.duration is None))
    lengths: dict[str, float | AudioError] = {}
    with ThreadPoolExecutor(PROBE_THREADS) as pool:
        for audio, length in zip(wanted, pool.map(seconds_or_error, wanted), strict=True):
            lengths[audio] = length
            if advance:
                advance(1, len(wanted))
    filled, problems = [], []
    for i, u in enumerate(utterances):
        length = lengths.get(u.audio)
        if u.duration is not None or length is None:
            filled.append(u)
        elif isinstance(length, AudioError):
            hint = "; --audio-root says where relative paths count from" if length.reason == "missing" else ""
            problems.append(replace(places[i], message=f"{length}{hint}"))
        elif length <= u.offset:
            problems.append(replace(places[i], message=f"offset {u.offset} s, but {u.audio} lasts {length:.3f} s"))
        else:
            filled.append(replace(u, duration=round(length - u.offset, 6)))
    return filled, problems


def seconds_or_error(audio: str) -> float | AudioError:
    try:
        return probe(audio).seconds
    except AudioError as e:
        return e
