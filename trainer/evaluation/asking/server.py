"""A server with OpenAI's chat API: vLLM, SGLang, or a hosted model. Audio is sent as WAV within the request."""

import base64
import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import soundfile

from coat.manifests import Clip
from coat.trainer.evaluation.asking.ask import Answered, Ask, Timed
from coat.trainer.evaluation.asking.chat import ChatClient, Refused, TimedCompletion
from coat.trainer.evaluation.results import Subject
from coat.trainer.students.chat import Turns

TOKENS_PER_S = 25  # of audio; only like lengths go together by it
TOKENS_PER_CHARACTER = 0.3


class ServerAsker:
    """A batch is so many requests at once; answers keep their order.

    `audio_rate`: clips are brought to it here, as a run's are, since servers resample each in its own way, or cannot.
    """

    def __init__(self, client: ChatClient, requests: int, audio_rate: int | None = None) -> None:
        self.client, self.requests, self.audio_rate = client, requests, audio_rate
        self.streams = True  # until it refuses to
        self.subject = Subject(
            kind="server", source=client.url, model_type=client.model, generation={"temperature": 0.0}
        )

    def positions(self, ask: Ask, seconds: float) -> int:
        return round(TOKENS_PER_S * seconds + TOKENS_PER_CHARACTER * len(ask.prompt)) + ask.max_new_tokens

    def prepare(self, ask: Ask, clip: Clip | None) -> list[dict[str, Any]]:
        if clip is not None and self.audio_rate is not None:
            clip = Clip(clip.at(self.audio_rate), self.audio_rate)
        return messages_of(ask.prompt, ask.row.turns, None if clip is None else wav_of(clip))

    def answer(self, prepared: Sequence[Any], max_new_tokens: int) -> list[Answered]:
        with ThreadPoolExecutor(self.requests) as pool:
            return list(pool.map(lambda messages: self.ask(messages, max_new_tokens), prepared))

    def ask(self, messages: list[dict[str, Any]], max_new_tokens: int) -> Answered:
        try:
            said = self.client.complete(messages, max_new_tokens)
        except Refused as e:
            return Answered(error=str(e))
        return Answered(
            text=said.text, prompt_tokens=said.prompt_tokens, answer_tokens=said.answer_tokens, cut=said.cut
        )

    def timed(self, ask: Ask, clip: Clip | None) -> Timed:
        """One request by itself, streamed where the server can: else nobody knows when its first token came."""
        start = time.perf_counter()
        messages = self.prepare(ask, clip)
        prepared = time.perf_counter() - start
        if self.streams:
            with suppress(Refused):  # the row, or the stream
                return timed_from(start, self.client.stream(messages, ask.max_new_tokens))
        start = time.perf_counter() - prepared
        completion = self.client.complete(messages, ask.max_new_tokens)
        self.streams = False
        return timed_from(start, TimedCompletion(completion, None, time.perf_counter()))


def timed_from(start: float, found: TimedCompletion) -> Timed:
    return Timed(
        seconds=found.last_at - start,
        first_token=None if found.first_at is None else found.first_at - start,
        prompt_tokens=found.completion.prompt_tokens,
        answer_tokens=found.completion.answer_tokens,
    )


def messages_of(prompt: str, turns: Turns, wav: dict[str, str] | None) -> list[dict[str, Any]]:
    """OpenAI's. All audio stands in the first turn, before its text."""
    texts = [*(text for turn in turns for text in turn), prompt]
    messages: list[dict[str, Any]] = [
        {"role": "assistant" if i % 2 else "user", "content": text if i % 2 else [{"type": "text", "text": text}]}
        for i, text in enumerate(texts)
    ]
    if wav is not None:
        messages[0]["content"].insert(0, {"type": "input_audio", "input_audio": wav})
    return messages


def wav_of(clip: Clip) -> dict[str, str]:
    """16-bit mono at the clip's rate."""
    sink = io.BytesIO()
    soundfile.write(sink, np.clip(clip.samples_T, -1.0, 1.0), clip.rate, format="WAV", subtype="PCM_16")
    return {"data": base64.b64encode(sink.getvalue()).decode(), "format": "wav"}
