"""Lhotse cuts to rows in coat's native form. ValueError says why one cannot be."""

from collections.abc import Mapping
from typing import Any

from coat.manifests.sources.column_names import keep
from coat.manifests.sources.records import list_of_objects

CUT_KEYS = ("id", "start", "duration", "channel", "supervisions", "recording", "custom", "type", "features")
SUPERVISION_KEYS = ("id", "start", "duration", "text", "custom", "recording_id", "channel", "alignment")


def from_cut(cut: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A Lhotse MonoCut: one row, or one per supervision where it has several (`<id>-0`, `<id>-1`, ...).

    {"id": ..., "start": 0.5, "duration": 2.0, "recording": {"sources": [{"type": "file", "source": "a.wav"}]},
    "supervisions": [{"start": 0.1 (from the start of the cut), "duration": 1.0, "text": ..., "speaker": ...}]}
    """
    audio = cut_audio(cut)
    start, duration = required_seconds(cut, "start"), required_seconds(cut, "duration")
    supervisions = list_of_objects(cut, "supervisions")
    base = {"audio_filepath": audio, **keep(cut, CUT_KEYS), **custom_values(cut)}
    if len(supervisions) < 2:
        spans = [(cut["id"], start, duration, supervisions[0] if supervisions else {})]
    else:
        spans = []
        for i, s in enumerate(supervisions):
            begin, end = (
                max(required_seconds(s, "start"), 0.0),
                min(required_seconds(s, "start") + required_seconds(s, "duration"), duration),
            )
            spans.append((f"{cut['id']}-{i}", start + begin, end - begin, s))
    rows = []
    for identity, offset, length, s in spans:
        row = {"id": identity, "offset": round(offset, 6), "duration": round(length, 6)}
        text = {"text": s["text"]} if s.get("text") is not None else {}
        rows.append(row | text | base | keep(s, SUPERVISION_KEYS) | custom_values(s))
    return rows


def cut_audio(cut: Mapping[str, Any]) -> str:
    """The file of a cut, where the file is what the cut means."""
    if cut.get("type", "MonoCut") != "MonoCut":
        raise ValueError(f"{cut['type']}; only a MonoCut is one span of one file (save mixed audio with `save_audios`)")
    recording = cut.get("recording")
    if not isinstance(recording, Mapping):
        raise ValueError("the cut has no recording; export cuts with their recordings")
    if transforms := list_of_objects(recording, "transforms"):
        names = ", ".join(str(t.get("name")) for t in transforms)
        raise ValueError(f"the recording is transformed on the fly ({names}); save it with `save_audios` first")
    sources = list_of_objects(recording, "sources")
    if len(sources) != 1 or sources[0].get("type") not in ("file", "url"):
        kinds = ", ".join(str(s.get("type")) for s in sources) or "none"
        raise ValueError(f"audio sources: {kinds}; expected one file")
    if sources[0].get("channels") not in (None, [], [0]):
        raise ValueError(
            f"channel {cut.get('channel')} of several; coat hears the mean of all: save it as its own file"
        )
    if not isinstance(sources[0].get("source"), str):
        raise ValueError("the audio source names no file")
    return sources[0]["source"]


def custom_values(item: Mapping[str, Any]) -> dict[str, Any]:
    """What users added. Arrays that Lhotse stores elsewhere are kept as it describes them."""
    values = item.get("custom")
    return keep(values, ()) if isinstance(values, Mapping) else {}


def required_seconds(item: Mapping[str, Any], name: str) -> float:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; expected seconds as a number")
    return float(value)
