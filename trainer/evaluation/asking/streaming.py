"""An answer that is sent while it is made, for the time to its first token: server-sent events of a chat API."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

READ_BYTES = 1 << 16
PREFIX, END = b"data:", b"[DONE]"
TOLD = ("content", "reasoning_content", "reasoning")  # where a token may stand: thoughts are tokens, too


class Readable(Protocol):
    """A response of urllib3 whose body is not read yet."""

    def read1(self, amt: int | None = None) -> bytes: ...


@dataclass(frozen=True)
class Event:
    data: dict[str, Any]
    at: float  # when it was read: events of one read have one time


@dataclass(frozen=True)
class Streamed:
    """All events together. `first_at`: of the first token; None where tokens did not come one by one."""

    text: str
    cut: bool
    usage: dict[str, Any]
    first_at: float | None
    last_at: float


def read_stream(response: Readable) -> Streamed:
    """ValueError where it is no such stream, where it has an error in it, or ends too early: why, in one line."""
    texts, usage, first_at, last_at, reason = [], {}, None, 0.0, None
    for event in events(response):
        if error := event.data.get("error"):
            raise ValueError(f"it broke off ({error.get('message', error) if isinstance(error, dict) else error})")
        usage = event.data.get("usage") or usage
        for choice in event.data.get("choices") or ():
            delta = choice.get("delta") or {}
            texts.append(delta.get("content") or "")
            if first_at is None and any(delta.get(key) for key in TOLD):
                first_at = event.at
            reason = choice.get("finish_reason") or reason
            last_at = event.at
    if reason is None:
        raise ValueError("it ended before the answer did")
    at_once = first_at == last_at and usage.get("completion_tokens") != 1  # by a server, or a proxy, that only says so
    return Streamed("".join(texts), reason == "length", usage, None if at_once else first_at, last_at)


def events(response: Readable) -> Iterator[Event]:
    rest = b""
    while block := response.read1(READ_BYTES):
        at = time.perf_counter()
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(PREFIX).strip()
            if not line.startswith(PREFIX) or data == END:
                continue  # comments and names of events; the end is known by its reason
            found = json.loads(data)
            if not isinstance(found, dict):
                raise ValueError(f"an event is {type(found).__name__}, not an object")
            yield Event(found, at)
