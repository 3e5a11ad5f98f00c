"""Records of CMI-Bench: audio in a list, with its span, and a split in a list."""

from collections.abc import Iterator, Mapping
from typing import Any

from coat.manifests.sources.records import Record


def cmi_audio(record: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The path, and `offset` and `duration` where a part is meant. ValueError where there is not one path.

    A span from 0 is the whole file: those of GTZAN say 30 s, and some files are shorter.
    """
    paths = record.get("audio_path") or record.get("audio_filepath") or record.get("audio")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or len(paths) != 1 or not paths[0]:
        raise ValueError("expected one path in audio_path")
    start, end = float(record.get("audio_start") or 0.0), float(record.get("audio_end") or -1)
    span = {"offset": start, **({"duration": end - start} if end > start else {})} if start > 0 else {}
    return str(paths[0]), span


def of_split(records: Iterator[Record], split: str) -> Iterator[Record]:
    """Those of a split, and those that name none."""
    for record in records:
        said = record.values.get("split")
        said = said[0] if isinstance(said, list) and said else said
        if not said or said == split:
            yield record
