"""A client of servers with OpenAI's chat API, for answers and for judges.

The key comes from an environment variable and goes into one header: never into a file, a message or a log.
"""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3

from coat.manifests import InputError, RunError
from coat.manifests.errors import one_line
from coat.trainer.evaluation.asking.streaming import read_stream
from coat.trainer.evaluation.settings import JudgeSettings

KEY_VARIABLE = "OPENAI_API_KEY"
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
OF_THE_ROW = (400, 413, 415, 422)  # it does not take this one request
CONNECT_S = 30.0


class Refused(InputError):
    """The server does not take this one request: it says nothing about others."""


@dataclass(frozen=True)
class Completion:
    text: str
    prompt_tokens: int | None
    answer_tokens: int | None
    cut: bool


@dataclass(frozen=True)
class Servers:
    """Where the keys of servers and judges are, and how long they have for an answer."""

    key_variable: str = KEY_VARIABLE
    judge_key_variable: str = KEY_VARIABLE
    timeout: float = 600.0  # seconds

    def asked(self, url: str, model: str | None, connections: int) -> "ChatClient":
        return ChatClient(url, model, key_variable=self.key_variable, timeout=self.timeout, connections=connections)

    def judge(self, judge: JudgeSettings) -> "ChatClient":
        return ChatClient(judge.url, judge.model, key_variable=self.judge_key_variable, timeout=self.timeout)


@dataclass(frozen=True)
class TimedCompletion:
    """`first_at` and `last_at`: of time.perf_counter(), when its first and its last token were read."""

    completion: Completion
    first_at: float | None
    last_at: float


class ChatClient:
    """`url`: of the API, such as http://host:8000/v1. `model` None: the one that the server lists.

    InputError: no such URL, or a key in it. RunError: it does not answer, or lists several models.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        key_variable: str = KEY_VARIABLE,
        timeout: float = 600.0,
        retries: int = 5,
        connections: int = 16,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{without_account(url)}: expected the URL of an API, such as http://localhost:8000/v1")
        if parts.username or parts.password:
            raise InputError(
                f"{without_account(url)}: a key does not belong into the URL; put it into the variable {key_variable}"
            )
        self.url, self.key = url.rstrip("/"), os.environ.get(key_variable, "")
        self.key_variable = key_variable
        retry = urllib3.Retry(
            retries,
            redirect=0,
            status_forcelist=RETRIED,
            allowed_methods=None,
            backoff_factor=0.5,
            backoff_max=30.0,
            raise_on_status=False,
            raise_on_redirect=False,
        )
        self.pool = urllib3.PoolManager(
            maxsize=connections, retries=retry, timeout=urllib3.Timeout(connect=CONNECT_S, read=timeout)
        )
        self.model = model or self.only_model()

    def only_model(self) -> str:
        found = self.request("GET", "/models")
        names = [m["id"] for m in found.get("data") or () if isinstance(m, dict) and isinstance(m.get("id"), str)]
        if len(names) != 1:
            listed = ", ".join(names[:5]) or "none"
            raise InputError(f"{self.url}: it serves {len(names)} models ({listed}); name one with --model")
        return names[0]

    def complete(self, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> Completion:
        """Greedily. Refused, where it does not take this one; RunError, where it does not answer."""
        return self.completion_of(self.request("POST", "/chat/completions", self.asked(messages, max_tokens)))

    def stream(self, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> TimedCompletion:
        """As `complete`, and when the first token came; None where the server does not send them one by one."""
        asked = self.asked(messages, max_tokens) | {"stream": True, "stream_options": {"include_usage": True}}
        response = self.send("POST", "/chat/completions", asked, preload=False)
        try:
            if "event-stream" not in response.headers.get("Content-Type", ""):
                found = self.completion_of(self.object_of(response.data, "/chat/completions"))
                return TimedCompletion(found, None, time.perf_counter())
            told = read_stream(response)
        except (ValueError, AttributeError, urllib3.exceptions.HTTPError) as e:
            said = self.clean(one_line(e))
            raise RunError(f"{self.url}: not a stream of a chat API ({said}); the same command goes on") from e
        finally:
            response.release_conn()
        return TimedCompletion(completion(told.text, told.usage, told.cut), told.first_at, told.last_at)

    def asked(self, messages: Sequence[Mapping[str, Any]], max_tokens: int) -> dict[str, Any]:
        return {"model": self.model, "messages": list(messages), "temperature": 0.0, "max_tokens": max_tokens}

    def completion_of(self, answer: Mapping[str, Any]) -> Completion:
        try:
            choice, usage = answer["choices"][0], answer.get("usage") or {}
            text = choice["message"].get("content") or ""
            if not isinstance(text, str):
                raise TypeError(f"content is {type(text).__name__}")
        except (KeyError, IndexError, TypeError, AttributeError) as e:
            raise RunError(f"{self.url}: not an answer of a chat API ({one_line(e, 80)})") from e
        return completion(text, usage, choice.get("finish_reason") == "length")

    def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return self.object_of(self.send(method, path, body).data, path)

    def send(self, method: str, path: str, body: Any = None, *, preload: bool = True) -> urllib3.BaseHTTPResponse:
        """A response of status 200, whose body is read already if `preload`."""
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        given = {} if body is None else {"json": body}
        try:
            response = self.pool.request(method, self.url + path, headers=headers, preload_content=preload, **given)
            if response.status != 200:
                self.refuse(response.status, response.data)
        except urllib3.exceptions.HTTPError as e:
            raise RunError(f"{self.url}: does not answer ({self.clean(one_line(e))}); the same command goes on") from e
        return response

    def object_of(self, data: bytes, path: str) -> dict[str, Any]:
        try:
            found = json.loads(data)
        except ValueError as e:
            raise RunError(f"{self.url}{path}: answered with something that is not JSON") from e
        if not isinstance(found, dict):
            raise RunError(f"{self.url}{path}: answered with {type(found).__name__}; expected an object")
        return found

    def refuse(self, status: int, data: bytes) -> None:
        said = self.clean(message_of(data))
        if status in OF_THE_ROW:
            raise Refused(f"the server refuses it ({status}: {said})")
        if status in (401, 403):
            has = "the key in" if self.key else "no key, and none in"
            raise InputError(f"{self.url}: {status} with {has} {self.key_variable} ({said})")
        if status == 404:
            raise InputError(f"{self.url}: 404 ({said}); expected the API's URL, which mostly ends in /v1, and a model")
        raise RunError(f"{self.url}: {status} ({said}); the same command goes on")

    def clean(self, text: str) -> str:
        return text.replace(self.key, "(key)") if self.key else text


def completion(text: str, usage: Mapping[str, Any], cut: bool) -> Completion:
    return Completion(text.strip(), usage.get("prompt_tokens"), usage.get("completion_tokens"), cut)


def message_of(data: bytes) -> str:
    """What an error says, in one line."""
    text = data.decode(errors="replace")
    try:
        found = json.loads(text)
        error = found.get("error", found) if isinstance(found, dict) else found
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        pass
    return " ".join(text.split())[:200] or "no reason given"


def without_account(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)
