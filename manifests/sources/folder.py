"""A folder of audio files, with their texts beside them."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coat.manifests.sources.metadata import READERS, Metadata
from coat.manifests.sources.records import AUDIO_SUFFIXES, Record, split_of, walk


def read_folder(path: str) -> Iterator[Record]:
    """Audio files below a folder, in the order of their names; `a.txt` beside `a.wav` is its text.

    `metadata.csv` (`.tsv`, `.jsonl`, `.parquet`), as Hugging Face's audio folders have it, gives further columns.
    """
    root = Path(path)
    notes: list[str] = []
    files = list(walk(root, notes))
    audio = sorted(f for f in files if f.suffix.lower() in AUDIO_SUFFIXES)
    places = {os.path.abspath(f) for f in audio}
    metadata = Metadata()
    for file in sorted(f for f in files if f.name in READERS):
        metadata.add(file.absolute(), places)
    yield from metadata.problems
    texts: set[Path] = set()
    for row, file in enumerate(audio, start=1):
        relative = file.relative_to(root).as_posix()
        if not is_text(relative):
            notes.append(f"{os.fsencode(relative)!r}: a name that is not UTF-8; left out, rename it")
            continue
        values: dict[str, Any] = {"audio_filepath": relative}
        if split := split_of(file.relative_to(root)):
            values["split"] = split
        sidecar = file.with_suffix(".txt")
        try:
            if sidecar.is_file():
                texts.add(sidecar)
                values["text"] = sidecar.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as e:
            yield Record(path, row, problem=f"{sidecar}: not UTF-8 (byte {e.start}); save the file as UTF-8")
            continue
        said = metadata.of(os.path.abspath(file))
        yield Record(path, row, values | {k: v for k, v in said.items() if v is not None})
    used = {*audio, *texts}
    passed_over = Counter(f.suffix or f.name for f in files if f not in used and f.name not in READERS)
    if passed_over:
        counted = ", ".join(f"{count} {suffix}" for suffix, count in passed_over.most_common(10))
        notes.append(f"{path}: files that are neither audio nor a text beside it, passed over: {ascii(counted)[1:-1]}")
    yield from (Record(path, 0, note=note) for note in notes)


def is_text(name: str) -> bool:
    """Whether a name can stand in a manifest, which is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
