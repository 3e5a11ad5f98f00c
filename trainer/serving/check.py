"""A running server and a run are asked the same things, and what they say is compared token by token."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import torch

from coat.trainer.evaluation.asking.chat import ChatClient, Refused
from coat.trainer.evaluation.asking.server import messages_of
from coat.trainer.evaluation.asking.student import answer_lengths
from coat.trainer.generation.generate import Question, Trained
from coat.trainer.serving.difference import Difference, of_prompts, of_tokens, of_words
from coat.trainer.serving.questions import Questions, Served

TOKEN_IDS = {"return_token_ids": True}  # vLLM's: ids of prompt and answer; others take no notice, or refuse it


@dataclass(frozen=True)
class ServedAnswer:
    """`ids`, `prompt_ids`: where the server tells them."""

    text: str
    ids: list[int] | None
    prompt_ids: list[int] | None
    prompt_tokens: int | None


@dataclass(frozen=True)
class Row:
    id: str
    prompt: str
    run: str
    server: str | None  # None: it refused
    difference: Difference | None
    prompt_difference: str | None  # what is wrong with the server's prompt
    error: str | None = None

    def same(self, margin: float) -> bool:
        """Whether it is the same, or the run held both tokens alike by at most `margin` nats."""
        if self.error is not None or self.prompt_difference is not None:
            return False
        found = self.difference
        return found is None or (found.margin is not None and abs(found.margin) <= margin)


@dataclass(frozen=True)
class Check:
    source: str
    left_out: dict[str, int]
    rows: list[Row]
    by_tokens: bool  # else the server told texts alone
    margin: float

    @property
    def different(self) -> list[Row]:
        return [row for row in self.rows if not row.same(self.margin)]

    @property
    def tolerated(self) -> list[Row]:
        return [row for row in self.rows if row.difference is not None and row.same(self.margin)]

    def to_json(self) -> dict[str, Any]:
        return {
            "asked": self.source,
            "left_out": self.left_out,
            "compared": "tokens" if self.by_tokens else "words",
            "rows": len(self.rows),
            "different": len(self.different),
            "tolerated": len(self.tolerated),
            "margin": self.margin,
            "differences": [asdict(row) for row in self.rows if row.difference or not row.same(self.margin)],
        }


def check(
    trained: Trained,
    client: ChatClient,
    questions: Questions,
    *,
    max_new_tokens: int = 32,
    margin: float = 0.0,
    requests: int = 4,
    advance: Callable[[int], None] = lambda _: None,
) -> Check:
    """`requests` at once to the server; the run is asked one by one, so that nothing is padded.

    `margin`: differences count as none where the run held both tokens alike by so many nats. RunError: the server does
    not answer.
    """
    speaker = Speaker(client, max_new_tokens)
    rows = []
    with ThreadPoolExecutor(requests) as pool:
        for one, answer in zip(questions.rows, pool.map(speaker.ask, questions.rows), strict=True):
            rows.append(compare(trained, one, answer, max_new_tokens))
            advance(1)
    return Check(questions.source, questions.left_out, rows, speaker.tells_ids, margin)


class Speaker:
    """Asks a server for tokens, and for text alone where it refuses that."""

    def __init__(self, client: ChatClient, max_new_tokens: int) -> None:
        self.client, self.max_new_tokens = client, max_new_tokens
        self.tells_ids = True  # until an answer comes without

    def ask(self, one: Served) -> ServedAnswer | str:
        """An answer, or why there is none, in a line."""
        asked = self.client.asked(messages_of(one.prompt, one.turns, one.wav), self.max_new_tokens)
        try:
            try:
                found = self.client.request("POST", "/chat/completions", asked | TOKEN_IDS)
            except Refused:  # this question, or the wish for ids
                found = self.client.request("POST", "/chat/completions", asked)
        except Refused as e:
            return str(e)
        completion, choice = self.client.completion_of(found), found["choices"][0]
        ids, prompt_ids = ids_of(choice.get("token_ids")), ids_of(found.get("prompt_token_ids"))
        if ids is None:
            self.tells_ids = False
        return ServedAnswer(completion.text, ids, prompt_ids, completion.prompt_tokens)


def ids_of(value: Any) -> list[int] | None:
    return value if isinstance(value, list) and value and all(isinstance(v, int) for v in value) else None


@torch.inference_mode()
def compare(trained: Trained, one: Served, answer: ServedAnswer | str, max_new_tokens: int) -> Row:
    clips = [] if one.clip is None else [(one.clip, one.id)]
    inputs = trained.pad_left([trained.encode(clips, Question(None, one.prompt, turns=one.turns))])
    ids_1N = trained.generate(inputs, max_new_tokens)
    text = str(trained.decode(ids_1N)[0])
    if isinstance(answer, str):
        return Row(one.id, one.prompt, text, None, None, None, answer)
    said = without_end(trained, ids_1N)
    if answer.ids is None:
        found = of_words(text, answer.text)
    else:
        found = of_tokens(trained, inputs, said, until_end(answer.ids, trained.student.chat.stop_ids))
    prompt_ids = inputs["input_ids"][0].tolist()
    wrong = of_prompts(trained, prompt_ids, answer.prompt_ids, answer.prompt_tokens)
    if answer.prompt_ids is None and found is None:
        wrong = None  # servers count audio as they like
    return Row(one.id, one.prompt, text, answer.text, found, wrong)


def without_end(trained: Trained, ids_1N: torch.Tensor) -> list[int]:
    """An answer's ids up to what ends it, that included: some servers tell it, and some don't."""
    stops = trained.student.chat.stop_ids
    (length,) = answer_lengths(ids_1N, torch.tensor(stops, device=ids_1N.device))
    return until_end(ids_1N[0, :length].tolist(), stops)


def until_end(ids: Sequence[int], stops: Sequence[int]) -> list[int]:
    """Without the token that ends it."""
    return [token for token in ids if token not in stops]


def server_url(url: str) -> str:
    """`http://host:8000` is taken for its API, `/v1`."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + "/v1"
