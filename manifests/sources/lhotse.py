"""Lhotse cuts to rows in coat's native form. ValueError says why one cannot be."""

from collections.abc import Mapping
from typing import Any

from coat.manifests.sources.column_names import other_values
from coat.manifests.sources.records import Refused, list_of_objects

CUT_KEYS = ("id", "start", "duration", "channel", "supervisions", "recording", "custom", "type", "features")
SUPERVISION_KEYS = ("id", "start", "duration", "text", "custom", "recording_id", "channel")
IGNORED = ("features",)  # computed from the audio
LEAST_INSIDE = 0.5  # of a supervision, in its cut: of one that has less there, the text is not what is heard


def from_cut(cut: Mapping[str, Any]) -> list[dict[str, Any] | Refused]:
    """A Lhotse MonoCut: one row, or one per supervision where it has several (`<id>-0`, `<id>-1`, ...).

    {"id": ..., "start": 0.5, "duration": 2.0, "recording": {"sources": [{"type": "file", "source": "a.wav"}]},
    "supervisions": [{"start": 0.1 (from the start of the cut), "duration": 1.0, "text": ..., "speaker": ...}]}
    A supervision that reaches over the ends of its cut is clipped to it; one that mostly lies outside is refused.
    """
    audio = cut_audio(cut)
    start, duration = required_seconds(cut, "start"), required_seconds(cut, "duration")
    supervisions = list_of_objects(cut, "supervisions")
    base = {"audio_filepath": audio, **other_values(cut, CUT_KEYS), **custom_values(cut)}
    if not supervisions:
        return [{"id": cut["id"], "offset": round(start, 6), "duration": round(duration, 6)} | base]
    rows: list[dict[str, Any] | Refused] = []
    for i, s in enumerate(supervisions):
        begin, length = required_seconds(s, "start"), required_seconds(s, "duration")
        first, last = max(begin, 0.0), min(begin + length, duration)
        if last - first < LEAST_INSIDE * length or last <= first:
            where = f"supervision {s.get('id', i)} from {begin:.3f} s to {begin + length:.3f} s"
            rows.append(Refused(f"cut {cut['id']}: {where} lies outside its cut, which lasts {duration:.3f} s"))
            continue
        row = {"id": f"{cut['id']}-{i}", "offset": round(start + first, 6), "duration": round(last - first, 6)}
        if len(supervisions) == 1:  # of the whole cut
            row |= {"id": cut["id"], "offset": round(start, 6), "duration": round(duration, 6)}
        text = {"text": s["text"]} if s.get("text") is not None else {}
        name = {"supervision_id": s["id"]} if s.get("id") not in (None, row["id"], cut["id"]) else {}
        rows.append(row | text | base | name | other_values(s, SUPERVISION_KEYS) | custom_values(s))
    return rows


def is_cut(record: Mapping[str, Any]) -> bool:
    return "recording" in record or str(record.get("type", "")).endswith("Cut")


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
    return other_values(values, ()) if isinstance(values, Mapping) else {}


def required_seconds(item: Mapping[str, Any], name: str) -> float:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; expected seconds as a number")
    return float(value)
