"""Lhotse cuts and ms-swift conversations to rows in coat's native form.

Each function takes one record and gives its rows; ValueError says why it cannot.
"""

from collections.abc import Mapping
from typing import Any

from coat.manifests.sources.column_names import Columns, keep

CUT_KEYS = ("id", "start", "duration", "channel", "supervisions", "recording", "custom", "type", "features")
SUPERVISION_KEYS = ("id", "start", "duration", "text", "custom", "recording_id", "channel", "alignment")


def from_cut(cut: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A Lhotse MonoCut: one row, or one per supervision where it has several (`<id>-0`, `<id>-1`, ...).

    {"id": ..., "start": 0.5, "duration": 2.0, "recording": {"sources": [{"type": "file", "source": "a.wav"}]},
    "supervisions": [{"start": 0.1 (from the start of the cut), "duration": 1.0, "text": ..., "speaker": ...}]}
    """
    audio = cut_audio(cut)
    start, duration = seconds(cut, "start"), seconds(cut, "duration")
    supervisions = objects(cut, "supervisions")
    base = {"audio_filepath": audio, **keep(cut, CUT_KEYS), **custom(cut)}
    if len(supervisions) < 2:
        spans = [(cut["id"], start, duration, supervisions[0] if supervisions else {})]
    else:
        spans = []
        for i, s in enumerate(supervisions):
            begin, end = max(seconds(s, "start"), 0.0), min(seconds(s, "start") + seconds(s, "duration"), duration)
            spans.append((f"{cut['id']}-{i}", start + begin, end - begin, s))
    rows = []
    for identity, offset, length, s in spans:
        row = {"id": identity, "offset": round(offset, 6), "duration": round(length, 6)}
        text = {"text": s["text"]} if s.get("text") is not None else {}
        rows.append(row | text | base | keep(s, SUPERVISION_KEYS) | custom(s))
    return rows


def cut_audio(cut: Mapping[str, Any]) -> str:
    """The file of a cut, where the file is what the cut means."""
    if cut.get("type", "MonoCut") != "MonoCut":
        raise ValueError(f"{cut['type']}; only a MonoCut is one span of one file (save mixed audio with `save_audios`)")
    recording = cut.get("recording")
    if not isinstance(recording, Mapping):
        raise ValueError("the cut has no recording; export cuts with their recordings")
    if transforms := objects(recording, "transforms"):
        names = ", ".join(str(t.get("name")) for t in transforms)
        raise ValueError(f"the recording is transformed on the fly ({names}); save it with `save_audios` first")
    sources = objects(recording, "sources")
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


def custom(item: Mapping[str, Any]) -> dict[str, Any]:
    """What users added. Arrays that Lhotse stores elsewhere are kept as it describes them."""
    values = item.get("custom")
    return keep(values, ()) if isinstance(values, Mapping) else {}


def objects(item: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """A list of JSON objects; empty where there is none."""
    value = item.get(name) or []
    if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
        raise ValueError(f"{name} must be a list of objects")
    return value


def seconds(item: Mapping[str, Any], name: str) -> float:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; expected seconds as a number")
    return float(value)


def from_swift(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An ms-swift row: the user's message is the prompt, the assistant's the response.

    {"messages": [{"role": "user", "content": "<audio>What is said?"}, {"role": "assistant", "content": "..."}],
    "audios": ["a.wav"]}. Of a conversation the last pair is prompt and response, and those before are `turns`; where it
    is not of pairs, or the audio is not in the first, the first messages are taken. Either way the whole of it is kept
    under `messages`. The older {"query": ..., "response": ..., "audios": [...]} is read too.
    """
    found: dict[str, str] = {}
    audios = record.get("audios") or []
    audios = list(audios) if isinstance(audios, list) else [audios]
    messages = objects(record, "messages")
    for message in messages:
        text, heard = content(message.get("content"))
        found.setdefault(str(message["role"]), text)
        audios += heard
    if isinstance(record.get("query"), str):
        found.setdefault("user", content(record["query"])[0])
    if len(audios) != 1:
        raise ValueError(f"{len(audios)} audio files in one row; expected one")
    others = {k: v for k, v in record.items() if k not in ("messages", "audios", "query")}
    others |= {name: found[role] for name, role in (("prompt", "user"), ("response", "assistant")) if role in found}
    if [m["role"] for m in messages] not in ([], ["user"], ["user", "assistant"]):
        others["messages"] = messages
        if pairs := pairs_of(messages):
            *others["turns"], (others["prompt"], others["response"]) = pairs
    others["audio_filepath"] = audios[0]
    return [Columns.detect(others, {}).to_native(others)]  # beside the conversation a row is as any table's


def pairs_of(messages: list[Mapping[str, Any]]) -> list[list[str]]:
    """A conversation as [prompt, answer] pairs; empty where it is none, or later prompts hold audio."""
    said = messages[1:] if messages[0]["role"] == "system" else messages
    if len(said) % 2 or any(m["role"] != ("user", "assistant")[i % 2] for i, m in enumerate(said)):
        return []
    if any(content(m.get("content"))[1] or "<audio>" in str(m.get("content")) for m in said[1:]):
        return []
    texts = [content(m.get("content"))[0] for m in said]
    return [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]


def content(value: Any) -> tuple[str, list[str]]:
    """The text of a message without its audio tags, and the audio that it holds as parts."""
    if value is None:
        return "", []
    if isinstance(value, str):
        return value.replace("<audio>", "").strip(), []
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise ValueError("content must be text or a list of parts")
    texts = [str(p["text"]) for p in value if p.get("type") == "text" and "text" in p]
    heard = [p.get("audio") or p.get("audio_url") for p in value if p.get("type") in ("audio", "audio_url")]
    if not all(isinstance(h, str) for h in heard):
        raise ValueError("an audio part must name its file")
    return " ".join(texts).strip(), [str(h) for h in heard]
