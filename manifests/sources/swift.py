"""Conversations (ms-swift, ShareGPT) to rows in coat's native form. ValueError says why one cannot be."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from coat.manifests.sources.column_names import Columns
from coat.manifests.sources.records import Refused, list_of_objects

NAMED_AUDIO = re.compile(r"(?:Audio \d+: ?)?<audio>([^<>]+)</audio>")  # as Qwen-Audio writes it
HELD_IN = ("messages", "conversations", "query")  # of any table
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant"}


def from_swift(
    record: Mapping[str, Any], column_map: Mapping[str, str] = MappingProxyType({})
) -> list[dict[str, Any] | Refused]:
    """A conversation: the user's message is the prompt, the assistant's the response.

    {"messages": [{"role": "user", "content": "<audio>What is said?"}, {"role": "assistant", "content": "..."}],
    "audios": ["a.wav"]}. Of a conversation the last pair is prompt and response, and those before are `turns`; where it
    is not of pairs, or the audio is not in the first, the first messages are taken. Either way the whole of it is kept
    under `messages`, and what stands before it under `system`. ShareGPT's {"conversations": [{"from": "human",
    "value": ...}, ...]} is read too, and {"query": ..., "response": ..., "history": [[query, response], ...]}. A
    conversation without audio (`audios: []`) is text alone.
    """
    found: dict[str, str] = {}
    history = history_of(record)
    column = Columns.detect(record, column_map).column_of_key.get("audio_filepath", "")
    stated = [k for k in ("audios", column) if record.get(k)]
    audios = [a for k in stated[:1] for a in (record[k] if isinstance(record[k], list) else [record[k]])]
    messages = [message_of(m) for name in ("messages", "conversations") for m in list_of_objects(record, name)]
    for message in messages:
        text, audio_parts = message_content(message.get("content"))
        found.setdefault(str(message["role"]), text)
        audios += [a for a in audio_parts if a not in audios]
    read = {"messages", "conversations", "audios", *stated[:1], "query", "history"}
    if isinstance(record.get("query"), str):
        text, audio_parts = message_content(record["query"])
        found.setdefault("user", text)
        audios += [a for a in audio_parts if a not in audios]
    audios += [
        a for pair in record.get("history") or [] for t in pair for a in message_content(t)[1] if a not in audios
    ]
    others = {k: v for k, v in record.items() if k not in read}
    if isinstance(record.get("system"), str) and record["system"]:
        found["system"] = record["system"]
    if found.get("system"):
        others["system"] = found["system"]
    said = {name: found[role] for name, role in (("prompt", "user"), ("response", "assistant")) if role in found}
    is_long = [m["role"] for m in messages] not in ([], ["user"], ["user", "assistant"])
    if is_long and (pairs := question_answer_pairs(messages)):
        *others["turns"], (said["prompt"], said["response"]) = pairs
    own = {k: others[k] for k in said if isinstance(others.get(k), str)}
    others |= said | own
    if is_long or own != {k: said[k] for k in own}:
        others["messages"] = messages
    if history:
        others["turns"] = [*history, *others.get("turns", [])]
    if not audios and has_no_audio(record, messages):
        others["audio_filepath"] = None
    elif len(audios) != 1:
        raise ValueError(f"{len(audios)} audio files in one row; expected one")
    else:
        others["audio_filepath"] = audios[0]
    return [Columns.detect(others, column_map).to_native(others)]  # beside the conversation a row is as any table's


def is_conversation(record: Mapping[str, Any]) -> bool:
    return any(k in record for k in ("audios", "messages", "conversations")) or {"query", "history"} <= record.keys()


def holds_conversation(record: Mapping[str, Any]) -> bool:
    """Whether a row of any table does."""
    if record.keys().isdisjoint(HELD_IN):
        return False
    for name in ("messages", "conversations"):
        said = record.get(name)
        if (
            isinstance(said, list)
            and said
            and all(isinstance(m, Mapping) and m.keys() & {"role", "from"} for m in said)
        ):
            return True
    return isinstance(record.get("query"), str) and isinstance(record.get("history"), list)


def message_of(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """With `role` and `content`, as ShareGPT's `from` and `value` are read."""
    role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    if role is None:
        raise ValueError("a message has no role (nor `from`)")
    rest = {k: v for k, v in message.items() if k not in ("role", "from", "content", "value")}
    return {"role": ROLES.get(str(role), str(role)), "content": content, **rest}


def history_of(record: Mapping[str, Any]) -> list[list[str]]:
    """Pairs that were said before `query`; ValueError where they are none."""
    history = record.get("history") or []
    if not isinstance(history, list) or not all(isinstance(p, list) and len(p) == 2 for p in history):
        raise ValueError("history must be a list of [query, response]")
    return [[message_content(text)[0] for text in pair] for pair in history]


def has_no_audio(record: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a row says that it is text alone: an empty list of audio, and no tag where one would stand."""
    said = [m.get("content") for m in messages] + [record.get("query"), *(record.get("history") or [])]
    states = any(name in record and not record[name] for name in ("audios", "audio", "audio_filepath"))
    return states and not any("<audio>" in str(text) for text in said)


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
        named = NAMED_AUDIO.findall(value)
        return NAMED_AUDIO.sub("", value).replace("<audio>", "").strip(), [name.strip() for name in named]
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise ValueError("content must be text or a list of parts")
    texts = [str(p["text"]) for p in value if p.get("type") == "text" and "text" in p]
    audio_parts = [p.get("audio") or p.get("audio_url") for p in value if p.get("type") in ("audio", "audio_url")]
    if not all(isinstance(a, str) for a in audio_parts):
        raise ValueError("an audio part must name its file")
    return " ".join(texts).strip(), [str(a) for a in audio_parts]
