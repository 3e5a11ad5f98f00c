"""Corpora in other forms to a manifest."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from coat.manifests import addresses, storage
from coat.manifests.corpus.parsing import parse_row
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.corpus.writing import write_lines
from coat.manifests.errors import InputError, ManifestError, Problem
from coat.manifests.sources.accounts import Accounts
from coat.manifests.sources.channels import Channel, channel_id, choose_channels
from coat.manifests.sources.column_names import AudioInPlace, Columns, EmbeddedAudio, check_column_map
from coat.manifests.sources.durations import Advance, fill_durations
from coat.manifests.sources.embedded_audio import AudioFolder
from coat.manifests.sources.formats import FORMATS, Format, detect_format, is_folder
from coat.manifests.sources.records import Record, Refused
from coat.manifests.sources.row_spool import RowSpool
from coat.manifests.sources.swift import from_swift, holds_conversation
from coat.manifests.sources.tars.nemo import is_unpacked
from coat.manifests.sources.tars.options import TarOptions

ROWS_AT_ONCE = 16384  # that are utterances, and whose headers are read together


@dataclass(frozen=True)
class ImportResult:
    """What an import did. `problems` are rows that were left out, with `skip_bad`."""

    path: str
    format: str
    rows: int
    seconds: float
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()  # what became of the columns, and what was left out


def import_manifest(
    source: str,
    out: str,
    *,
    format: str | Format | None = None,
    column_map: Mapping[str, str] | None = None,
    audio_root: str | None = None,
    split: str | None = None,
    channel: Channel = "mix",
    read_headers: bool = True,
    skip_bad: bool = False,
    copy: bool = False,
    tars: str = "",
    tar_in_id: bool = False,
    advance: Advance | None = None,
) -> ImportResult:
    """Write the manifest `out` (JSONL) of a corpus in another form: a file, a folder, or a pattern of several
    (`storage.expand`), here or in a store.

    Relative audio paths count from `audio_root`, or else from where the source lies. Audio that lies below
    the folder of `out` is named relative to it, so that both can move together. `column_map` maps native keys
    to columns; of several splits only `split` is taken, of several channels `channel` (`choose_channels`).
    ManifestError lists every bad row, and nothing is written; with `skip_bad` they are left out. `advance(n, rows)` is
    called as rows are read, with their number where it is known. Audio in tars and tables is read where it lies, or
    with `copy` written to files beside the manifest. `tars`: of a manifest of NeMo's, a pattern; `tar_in_id`: ids begin
    with the name of their tar. `format` may be one of the caller's own, under the name `own`.
    """
    check_column_map(column_map or {})
    sources = source_files(source)
    audio_root, tars = os.path.expanduser(audio_root or ""), os.path.expanduser(tars)
    if isinstance(format, Format):
        form, chosen = "own", format
    else:
        form = chosen_format(source, sources[0], format, audio_root, tars)
        chosen = FORMATS[form]
    takes = chosen.takes
    for one in sources:
        if takes != "either" and is_folder(one) != (takes == "folder"):
            raise InputError(f"{one}: expected a {takes} for --format {form}")
    if os.path.isdir(out):
        raise InputError(
            f"{out}: is a folder; expected the name of the manifest to write, such as {out}/manifest.jsonl"
        )
    if storage.absolute(out) in map(storage.absolute, sources):
        raise InputError(f"{out}: would replace its own source; give another name")
    reader = RecordReader(
        chosen,
        column_map or {},
        audio_root,
        AudioFolder(out),
        storage.parent(storage.absolute(out)),
        split,
        channel,
        copy,
        TarOptions(tars, tar_in_id, frozenset((column_map or {}).values())),
    )
    count = chosen.count_rows if advance and split is None else None
    total = sum(map(count, sources)) if count else None
    done: Callable[[int], None] = (lambda n: advance(n, total)) if advance else (lambda n: None)
    unreadable: list[tuple[int, Problem]] = []
    with RowSpool() as rows:
        found = reader.read(sources)
        while block := list(islice(found, ROWS_AT_ONCE)):
            utterances, origins = [u for u, _ in block], [origin for _, origin in block]
            if not chosen.at_channel:
                utterances, origins = choose_channels(utterances, origins, channel)
            written = [True] * len(utterances)
            if read_headers:
                utterances, bad = fill_durations(utterances, origins, done)
                unreadable += ((len(rows) + i, problem) for i, problem in bad.items())
                written = [i not in bad for i in range(len(utterances))]
            else:
                done(len(utterances))
            rows.add(utterances, origins, ["" if u.id else reader.id_from_path(u) for u in utterances], written)
            reader.names.clear()
        repeated = dict(rows.repeated_ids())
        left_out = np.zeros(len(rows), bool)
        left_out[list(repeated)] = True
        if repeated and chosen.read_tars and not tar_in_id:
            hint = "; --tar-in-id puts the name of its tar before each id"
            repeated = {row: replace(p, message=p.message + hint) for row, p in repeated.items()}
        problems = sorted([*reader.problems, *repeated.items()], key=lambda found: found[0])
        problems = [p for _, p in problems] + [p for row, p in unreadable if row not in repeated]
        kept = rows.kept(left_out)
        if not kept.any() and not problems:
            raise InputError(f"{source}: no audio found; expected {form} with at least one row")
        if problems and not (skip_bad and kept.any()):
            raise ManifestError(problems)
        write_lines(out, rows.manifest_lines(left_out))
        seconds = math.fsum(np.array(rows.seconds)[kept])
    return ImportResult(out, form, int(kept.sum()), seconds, tuple(problems), tuple(reader.accounts.lines()))


def source_files(source: str) -> list[str]:
    """What a source stands for: itself, or the files of a pattern. InputError where one is not there."""
    source = os.path.expanduser(source)
    found = storage.expand(source)
    if found == [source] and not storage.exists(source):
        raise InputError(f"{source}: no such file or folder")
    if len(found) > 1:
        storage.check_all_there(found)
    return found


def chosen_format(source: str, first: str, said: str | None, audio_root: str, tars: str) -> str:
    """InputError where there is none of that name, or `tars` are given to another than NeMo's."""
    form = said or detect_format(first)
    if form not in FORMATS:
        raise InputError(f"--format {form}: no such format; expected one of {', '.join(FORMATS)}")
    if form == "jsonl" and tars:
        form = "nemo-tarred"
    if form == "nemo-tarred" and not (said or tars or is_folder(first)) and is_unpacked(first, audio_root):
        form = "jsonl"  # as which its files are found
    if tars and form != "nemo-tarred":
        raise InputError(f"--tars {tars}: for a manifest of NeMo's, and {source} has the form {form}")
    return form


@dataclass
class RecordReader:
    """Records to utterances, with a problem for each that cannot be one."""

    format: Format
    column_map: Mapping[str, str]
    audio_root: str  # what relative audio paths count from; empty: where each source lies
    audio: AudioFolder
    out_folder: str  # absolute
    split: str | None = None  # the one that is wanted
    channel: Channel = "mix"
    copy: bool = False  # audio that has an address goes to files of its own
    tar_options: TarOptions = field(default_factory=TarOptions)
    accounts: Accounts = field(default_factory=Accounts)
    problems: list[tuple[int, Problem]] = field(default_factory=list)  # each with the number of rows before it
    root: str = ""  # of the source that is being read; absolute
    names: dict[str, str] = field(default_factory=dict)  # of audio in tables, by address: rows that have no id

    def read(self, sources: Sequence[str]) -> Iterator[tuple[Utterance, Problem]]:
        """Each row, whose id may be empty, and where it came from. InputError where a mapped column is not there."""
        count = 0
        seen: dict[str, None] = {}
        splits: Counter[str] = Counter()
        for record in self.records(sources):
            origin = Problem(record.file, record.row, record.problem)
            if record.note:
                self.accounts.notes.append(record.note)
                continue
            seen.update(dict.fromkeys(record.values))
            if record.problem:
                self.problems.append((count, origin))
                continue
            if self.split is not None:
                splits[str(record.values.get("split", ""))] += 1
                if str(record.values.get("split", "")) != self.split:
                    continue
            try:
                for row in self.to_rows(record):
                    if isinstance(row, Refused):
                        self.problems.append((count, replace(origin, message=row.message)))
                        continue
                    utterance = self.utterance(row, count + 1)
                    count += 1
                    if not utterance.id and isinstance(audio := row["audio_filepath"], AudioInPlace):
                        self.names[utterance.audio] = self.name_of(audio, origin)
                    yield utterance, origin
            except (ValueError, KeyError) as e:
                message = f"no {e}" if isinstance(e, KeyError) else str(e)
                self.problems.append((count, replace(origin, message=message)))
        if self.split is not None and self.split not in splits:
            has = ", ".join(sorted(s for s in splits if s)) or "none"
            raise InputError(f"--split {self.split}: {sources[0]} has no such split; it has {has}")
        for native, column in self.column_map.items():
            if column not in seen:
                raise InputError(f"--map {native}={column}: {sources[0]} has no such column; it has {', '.join(seen)}")

    def records(self, sources: Sequence[str]) -> Iterator[Record]:
        if self.format.read_tars:  # whose rows have addresses
            yield from self.format.read_tars(sources, self.tar_options)
            return
        for source in sources:
            root = self.audio_root or (source if is_folder(source) else storage.parent(source))
            self.root = storage.absolute(root)
            yield from self.format.read(source)

    def to_rows(self, record: Record) -> list[dict[str, Any] | Refused]:
        values, column_map = record.values, {**record.columns, **self.column_map}
        columns = Columns.detect(values, column_map)
        self.accounts.add(values, columns.column_of_key, self.format.ignored)
        if self.format.to_rows == from_swift or (self.format.to_rows is None and holds_conversation(values)):
            return from_swift(values, column_map)
        if self.format.at_channel:
            return self.format.at_channel(values, self.channel)
        if self.format.to_rows:
            return self.format.to_rows(values)
        return [columns.to_native(values)]

    def utterance(self, row: dict[str, Any], position: int) -> Utterance:
        """Through `parse_row`, so that what is written can be read."""
        audio = row["audio_filepath"]
        if audio is None:  # text alone
            return parse_row(row if row.get("id") else row | {"id": f"text-{position:08d}"}, self.out_folder, position)
        if isinstance(audio, EmbeddedAudio):
            audio = self.audio.save(audio, str(row.get("id", "")) or f"row-{position:08d}")
        else:
            once, audio = (audio.path, audio.address) if isinstance(audio, AudioInPlace) else ("", audio)
            audio = storage.absolute(storage.resolve(self.root, audio))
            if self.copy and addresses.is_address(audio):
                audio = self.audio.copy(audio, str(row.get("id", "")) or f"row-{position:08d}", once)
        return parse_row(row | {"audio_filepath": self.path_in_manifest(audio)}, self.out_folder, position)

    def path_in_manifest(self, audio: str) -> str:
        """An absolute path as the manifest has it: relative where it lies below the manifest's folder."""
        below = self.out_folder.rstrip("/") + "/"
        return audio.removeprefix(below) if audio.startswith(below) else audio

    def name_of(self, audio: AudioInPlace, origin: Problem) -> str:
        """For a row without an id: what its audio was called, or else its table and the row."""
        name = audio.path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
        table = storage.absolute(origin.file).removeprefix(self.root.rstrip("/") + "/")
        return name.rsplit(".", 1)[0] or f"{table.rsplit('.', 1)[0]}-{origin.row:08d}"

    def id_from_path(self, u: Utterance) -> str:
        """An id for a row without one: its path below the corpus, or in its tar, without the suffix."""
        address, channel = addresses.split_channel(u.audio)
        if name := self.names.get(address):
            return name if channel is None else channel_id(name, channel)
        if addresses.is_address(address) and (member := getattr(addresses.parse(address), "member", "")):
            return named(member.removeprefix("./"), channel)
        path = storage.absolute(address)
        for folder in (self.audio.folder, storage.absolute(self.root)):
            if path.startswith(folder.rstrip("/") + "/"):
                return named(path[len(folder.rstrip("/")) + 1 :], channel)
        return named(addresses.split_channel(u.audio_filepath)[0], channel)


def named(path: str, channel: int | None) -> str:
    stem = path.rsplit(".", 1)[0]
    return stem if channel is None else channel_id(stem, channel)
