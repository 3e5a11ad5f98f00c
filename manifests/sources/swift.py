"""ms-swift conversations to rows in coat's native form. ValueError says why one cannot be."""

from collections.abc import Mapping
from typing import Any

from coat.manifests.sources.column_names import Columns
from coat.manifests.sources.records import list_of_objects


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
    messages = list_of_objects(record, "messages")
    for message in messages:
        text, audio_parts = message_content(message.get("content"))
        found.setdefault(str(message["role"]), text)
        audios += audio_parts
    if isinstance(record.get("query"), str):
        found.setdefault("user", message_content(record["query"])[0])
    if len(audios) != 1:
        raise ValueError(f"{len(audios)} audio files in one row; expected one")
    others = {k: v for k, v in record.items() if k not in ("messages", "audios", "query")}
    others |= {name: found[role] for name, role in (("prompt", "user"), ("response", "assistant")) if role in found}
    if [m["role"] for m in messages] not in ([], ["user"], ["user", "assistant"]):
        others["messages"] = messages
        if pairs := question_answer_pairs(messages):
            *others["turns"], (others["prompt"], others["response"]) = pairs
    others["audio_filepath"] = audios[0]
    return [Columns.detect(others, {}).to_native(others)]  # beside the conversation a row is as any table's


def question_answer_pairs(messages: list[Mapping[str, Any]]) -> list[list[str]]:
    """A conversation as [prompt, answer] pairs; empty where it is none, or later prompts hold audio."""
    said = messages[1:] if messages[0]["role"] == "system" else messages
    if len(said) % 2 or any(m["role"] != ("user", "assistant")[i % 2] for i, m in enumerate(said)):
        return []
    if any(message_content(m.get("content"))[1] or "<audio>" in str(m.get("content")) for m in said[1:]):
        return []
    texts = [message_content(m.get("content"))[0] for m in said]
    return [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]


def message_content(value: Any) -> tuple[str, list[str]]:
    """The text of a message without its audio tags, and the audio that it holds as parts."""
    if value is None:
        return "", []
    if isinstance(value, str):
        return value.replace("<audio>", "").strip(), []
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise ValueError("content must be text or a list of parts")
    texts = [str(p["text"]) for p in value if p.get("type") == "text" and "text" in p]
    audio_parts = [p.get("audio") or p.get("audio_url") for p in value if p.get("type") in ("audio", "audio_url")]
    if not all(isinstance(a, str) for a in audio_parts):
        raise ValueError("an audio part must name its file")
    return " ".join(texts).strip(), [str(a) for a in audio_parts]
