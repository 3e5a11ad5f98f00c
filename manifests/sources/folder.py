"""A folder of audio files, with their texts beside them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coat.manifests.sources.records import AUDIO_SUFFIXES, Record, walk


def read_folder(path: str) -> Iterator[Record]:
    """Audio files below a folder, in the order of their names; `a.txt` beside `a.wav` is its text."""
    root = Path(path)
    found = sorted(f for f in walk(root) if f.suffix.lower() in AUDIO_SUFFIXES)
    for row, audio in enumerate(found, start=1):
        values: dict[str, Any] = {"audio_filepath": audio.relative_to(root).as_posix()}
        sidecar = audio.with_suffix(".txt")
        try:
            if sidecar.is_file():
                values["text"] = sidecar.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as e:
            yield Record(path, row, problem=f"{sidecar}: not UTF-8 (byte {e.start}); save the file as UTF-8")
            continue
        yield Record(path, row, values)
