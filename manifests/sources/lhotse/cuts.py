"""Lhotse cuts to rows in coat's native form. ValueError says why one cannot be."""

from collections.abc import Mapping, Sequence
from typing import Any

from coat.manifests.sources.channels import Channel, at_channel, channel_id
from coat.manifests.sources.column_names import other_values
from coat.manifests.sources.records import Refused, list_of_objects

CUT_KEYS = ("id", "start", "duration", "channel", "supervisions", "recording", "custom", "type", "features")
SUPERVISION_KEYS = ("id", "start", "duration", "text", "custom", "recording_id", "channel")
IGNORED = ("features",)  # computed from the audio
LEAST_INSIDE = 0.5  # of a supervision, in its cut: of one that has less there, the text is not what is heard
Rows = list[dict[str, Any] | Refused]


def from_cut(cut: Mapping[str, Any], channel: Channel = "mix") -> Rows:
    """A Lhotse cut: one row, or one per supervision where it has several (`<id>-0`, `<id>-1`, ...).

    {"id": ..., "start": 0.5, "duration": 2.0, "recording": {"sources": [{"type": "file", "source": "a.wav"}]},
    "supervisions": [{"start": 0.1 (from the start of the cut), "duration": 1.0, "text": ..., "speaker": ...}]}
    A supervision that reaches over the ends of its cut is clipped to it; one that mostly lies outside is refused.
    A MonoCut says itself which channel it is of. Of a MultiCut `channel` says it: their mean; or one of them, or each,
    with those of its supervisions that are of that channel.
    """
    name, channels, supervisions = str(cut["id"]), cut_channels(cut), list_of_objects(cut, "supervisions")
    if len(channels) < 2 or channel == "mix":
        return cut_rows(cut, name, cut_audio(cut, channels), supervisions)
    rows: Rows = []
    for one in channels if channel == "each" else [channel]:
        said = [s for s in supervisions if one in channels_of(s.get("channel", one))]
        rows += cut_rows(cut, channel_id(name, one) if channel == "each" else name, cut_audio(cut, [one]), said)
    return rows


def cut_rows(cut: Mapping[str, Any], name: str, audio: str, supervisions: Sequence[Mapping[str, Any]]) -> Rows:
    """The rows of one sound."""
    start, duration = required_seconds(cut, "start"), required_seconds(cut, "duration")
    base = {"audio_filepath": audio, **other_values(cut, CUT_KEYS), **custom_values(cut)}
    if not supervisions:
        return [{"id": name, "offset": round(start, 6), "duration": round(duration, 6)} | base]
    rows: Rows = []
    for i, s in enumerate(supervisions):
        begin, length = required_seconds(s, "start"), required_seconds(s, "duration")
        first, last = max(begin, 0.0), min(begin + length, duration)
        if last - first < LEAST_INSIDE * length or last <= first:
            where = f"supervision {s.get('id', i)} from {begin:.3f} s to {begin + length:.3f} s"
            rows.append(Refused(f"cut {cut['id']}: {where} lies outside its cut, which lasts {duration:.3f} s"))
            continue
        row = {"id": f"{name}-{i}", "offset": round(start + first, 6), "duration": round(last - first, 6)}
        if len(supervisions) == 1:  # of the whole cut
            row |= {"id": name, "offset": round(start, 6), "duration": round(duration, 6)}
        text = {"text": s["text"]} if s.get("text") is not None else {}
        given = {"supervision_id": s["id"]} if s.get("id") not in (None, row["id"], cut["id"]) else {}
        rows.append(row | text | base | given | other_values(s, SUPERVISION_KEYS) | custom_values(s))
    return rows


def is_cut(record: Mapping[str, Any]) -> bool:
    return "recording" in record or str(record.get("type", "")).endswith("Cut")


def channels_of(value: Any) -> list[int]:
    """Lhotse has one number, or a list of them."""
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(c, int) and not isinstance(c, bool) and c >= 0 for c in found):
        raise ValueError(f"channel is {str(value)[:40]!r}; expected a number from 0, or a list of them")
    return found


def cut_channels(cut: Mapping[str, Any]) -> list[int]:
    """What a cut says, ascending; none where it does not say."""
    if cut.get("type", "MonoCut") not in ("MonoCut", "MultiCut"):
        raise ValueError(f"{cut['type']}; only a cut of one recording is a span of it (save others with `save_audios`)")
    return [] if cut.get("channel") is None else sorted(set(channels_of(cut["channel"])))


def cut_audio(cut: Mapping[str, Any], channels: Sequence[int]) -> str:
    """The address of what is heard: of the mean of these channels, none are all that there are."""
    recording = cut.get("recording")
    if not isinstance(recording, Mapping):
        raise ValueError("the cut has no recording; export cuts with their recordings")
    if transforms := list_of_objects(recording, "transforms"):
        names = ", ".join(str(t.get("name")) for t in transforms)
        raise ValueError(f"the recording is transformed on the fly ({names}); save it with `save_audios` first")
    sources = list_of_objects(recording, "sources")
    kinds = ", ".join(str(s.get("type")) for s in sources) or "none"
    if not sources or any(s.get("type") not in ("file", "url") for s in sources):
        raise ValueError(f"audio sources: {kinds}; expected files or URLs")
    held = [channels_of(s.get("channels") or [0]) for s in sources]
    of_source = next((i for i, has in enumerate(held) if set(channels) <= set(has)), None)
    if of_source is None or (not channels and len(sources) > 1):
        has = " and ".join(str(h) for h in held)
        if all(any(c in h for h in held) for c in channels):
            raise ValueError(f"channels {list(channels)} lie in several files ({has}): --channel each, or a number")
        raise ValueError(f"no source has channel {', '.join(map(str, channels))} (they have {has})")
    address, has = sources[of_source].get("source"), held[of_source]
    if not isinstance(address, str) or not address:
        raise ValueError("the audio source names no file")
    if not channels or list(channels) == sorted(has):
        return address
    if len(channels) > 1:
        raise ValueError(f"the mean of channels {list(channels)} of {has}: --channel each, or a number, takes one each")
    return at_channel(address, has.index(channels[0]))


def custom_values(item: Mapping[str, Any]) -> dict[str, Any]:
    """What users added. Arrays that Lhotse stores elsewhere are kept as it describes them."""
    values = item.get("custom")
    return other_values(values, ()) if isinstance(values, Mapping) else {}


def required_seconds(item: Mapping[str, Any], name: str) -> float:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; expected seconds as a number")
    return float(value)
