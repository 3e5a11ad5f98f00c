"""WebDataset tars: of each sample its audio, and columns from its JSON and its texts."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coat.manifests import storage
from coat.manifests.sources.column_names import ALIASES, plain
from coat.manifests.sources.records import AUDIO_SUFFIXES, Record
from coat.manifests.sources.tars.folders import find_files, paths_below
from coat.manifests.sources.tars.members import COMPRESSED_SUFFIXES, TarReader, Unusable, open_tar
from coat.manifests.sources.tars.options import TarOptions
from coat.manifests.sources.tars.samples import PassedOver, Sample, read_samples

TEXTS = ("txt", "text", "transcript", "transcription", "lab", "trn")  # suffixes, the likeliest first
SPANS = {*ALIASES["offset"], *ALIASES["end"]}  # of a recording that the clip is from, where a sample's JSON has them


def has_tars(folder: str) -> bool:
    """Whether it is a folder of tars, here or in a store, and of nothing else that would be a corpus."""
    suffixes = {Path(path).suffix.lower() for path in paths_below(folder)}
    return ".tar" in suffixes and not suffixes & AUDIO_SUFFIXES


def read_webdataset(sources: Sequence[str], options: TarOptions) -> Iterator[Record]:
    """A record for each audio member; what a sample lacks is a problem. Several tars are read one after the other."""
    reading = Reading(options)
    for source in sources:
        notes = reading.passed_over.notes
        tars = [source] if storage.is_file(source) else find_files(source, (".tar", *COMPRESSED_SUFFIXES), notes)
        for url in tars:
            yield from reading.records(url)
    yield from (Record(sources[0], 0, note=note) for note in reading.notes())


@dataclass
class Reading:
    """Of several tars, and what is to be said of them at the end."""

    options: TarOptions
    passed_over: PassedOver = field(default_factory=PassedOver)
    several: int = 0  # samples of several audio members
    example: str = ""  # ids of one of them
    spans: Counter[str] = field(default_factory=Counter)  # samples whose JSON has what looks like a span, by its name

    def records(self, url: str) -> Iterator[Record]:
        with open_tar(url) as tar:
            for sample in read_samples(tar, self.passed_over):
                if isinstance(sample, Unusable):
                    yield Record(tar.url, sample.number, problem=sample.message)
                    continue
                try:
                    rows = self.rows(sample, tar)
                except ValueError as e:
                    yield Record(tar.url, sample.first.number, problem=str(e))
                    continue
                yield from (Record(tar.url, sample.first.number, values) for values in rows)
            self.passed_over.notes += tar.notes()

    def rows(self, sample: Sample, tar: TarReader) -> list[dict[str, Any]]:
        """One for each audio member. ValueError names the member that is wrong."""
        audios = [s for s in sample.members if f".{extension(s)}" in AUDIO_SUFFIXES]
        if not audios:
            has = ", ".join(f".{s}" for s in sample.members)
            raise ValueError(f"{sample.name(next(iter(sample.members)))}: no audio beside it (its sample has {has})")
        texts = self.texts(sample, tar)
        ids = ids_of(sample, audios)
        if len(audios) > 1:
            self.several, self.example = self.several + 1, self.example or ", ".join(ids)
        prefix = f"{Path(tar.url).stem}/" if self.options.tar_in_id else ""
        others = {middle(s) for s in audios} - {""}
        rows = []
        for suffix, identity in zip(audios, ids, strict=True):
            own = {s: text for s, text in texts.items() if middle(s) == middle(suffix) or middle(s) not in others}
            values = {"audio_filepath": sample.members[suffix].address(), "id": prefix + identity}
            rows.append(self.with_columns(values, own, middle(suffix)))
        return rows

    def texts(self, sample: Sample, tar: TarReader) -> dict[str, Any]:
        """What texts say, by suffix. ValueError names one that is wrong."""
        found: dict[str, Any] = {}
        for suffix, member in sample.members.items():
            kind = extension(suffix)
            if kind in (*TEXTS, "json", "cls"):
                found[suffix] = parse_text(kind, tar.read(member), sample.name(suffix))
            elif f".{kind}" not in AUDIO_SUFFIXES:
                self.passed_over.kinds[f".{kind}"] += 1
        for suffix in found:
            if suffix == "json" and not isinstance(found[suffix], dict):
                raise ValueError(f"{sample.name(suffix)}: {type(found[suffix]).__name__}; expected a JSON object")
        return found

    def with_columns(self, row: dict[str, Any], texts: Mapping[str, Any], own: str) -> dict[str, Any]:
        """A row with the columns of its texts. `own`: the middle of its audio's suffix, which others may have."""
        named = [f"{own}.{kind}" if own else kind for kind in ("json", *TEXTS)]
        if text := next((s for s in (*named[1:], *TEXTS) if s in texts), ""):
            row["text"] = texts[text]
        columns: dict[str, Any] = {}
        for suffix, value in texts.items():
            if suffix in ("json", named[0]) and isinstance(value, dict):
                columns |= value
            elif suffix != text:
                columns["cls" if extension(suffix) == "cls" and middle(suffix) == own else suffix] = value
        for name, value in columns.items():
            kept = name
            if plain(name) in SPANS and name not in self.options.mapped:
                self.spans[name] += 1
                kept = f"original_{name}"
            if name in row and row[name] == value:
                continue
            while kept in row or (kept != name and kept in columns) or kept == "audios":
                kept = f"original_{kept}"
            row[kept] = value
        return row

    def notes(self) -> list[str]:
        notes = self.passed_over.lines()
        if self.several:
            notes.append(f"{self.several} samples have several audio members, each a row of its own: {self.example}")
        if self.spans:
            names = ", ".join(f"{name} ({count})" for name, count in self.spans.items())
            notes.append(
                f"kept as original_NAME, for a member is taken as the whole clip: {names}; --map offset=NAME, "
                "--map end=NAME where they are spans of the member"
            )
        return notes


def extension(suffix: str) -> str:
    return suffix.rsplit(".", 1)[-1]


def middle(suffix: str) -> str:
    """`left` of `left.wav`; of `wav` nothing."""
    return suffix.rpartition(".")[0]


def ids_of(sample: Sample, audios: Sequence[str]) -> list[str]:
    """The key; of several audio members with what tells them apart: the middles of their suffixes, or the suffixes."""
    key = sample.key.removeprefix("./")
    if len(audios) == 1:
        return [key]
    middles = {middle(s) for s in audios}
    apart = len(middles) == len(audios) and "" not in middles
    return [f"{key}.{middle(s) if apart else s}" for s in audios]


def parse_text(kind: str, data: bytes, name: str) -> Any:
    """ValueError names the member where it is not what its suffix says."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{name}: not UTF-8 (byte {e.start}); save the text as UTF-8") from e
    if kind == "json":
        try:
            return json.loads(text)
        except (json.JSONDecodeError, RecursionError) as e:
            raise ValueError(f"{name}: not JSON ({e})") from e
    text = text.strip()
    return int(text) if kind == "cls" and text.isascii() and text.isdigit() and len(text) < 19 else text
