"""What is asked, what comes back, and who answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coat.manifests import Clip, Utterance
from coat.trainer.evaluation.predictions import Key, Prediction
from coat.trainer.evaluation.results import Subject


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One prompt about one row. `variant` "": the row as it is."""

    benchmark: str
    row: Utterance
    prompt: str  # as sent
    choices: tuple[str, ...] = ()  # in the order that the prompt lists them
    variant: str = ""
    heard: Utterance | None = None  # another row, whose audio is heard for as long as the row's own; None: its own
    silent: bool = False  # silence is heard instead, as long as its own audio
    max_new_tokens: int = 256

    @property
    def key(self) -> Key:
        return self.benchmark, self.row.id, self.variant

    def prediction(self, answered: "Answered", choice: str | None) -> Prediction:
        return Prediction(
            benchmark=self.benchmark,
            id=self.row.id,
            variant=self.variant,
            prompt=self.prompt,
            choices=self.choices,
            audio=self.heard.id if self.heard else "",
            answer=answered.text,
            choice=choice,
            prompt_tokens=answered.prompt_tokens,
            block_tokens=answered.block_tokens,
            answer_tokens=answered.answer_tokens,
            cut=answered.cut,
            error=answered.error,
        )


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Text None: it failed, and `error` is one line."""

    text: str | None = None
    prompt_tokens: int | None = None
    block_tokens: int | None = None
    answer_tokens: int | None = None
    cut: bool = False
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One answer by itself: seconds from its decoded audio to the first token, and to the last."""

    seconds: float
    first_token: float | None = None
    prompt_tokens: int | None = None
    block_tokens: int | None = None
    answer_tokens: int | None = None


@dataclass(frozen=True)
class Failed:
    """What stands for a prompt that cannot be asked: its audio is broken, too long, ..."""

    error: str


class Asker(Protocol):
    """Who is asked. `prepare` is called in threads, ahead of `answer`, which gets a batch of what it gave."""

    @property
    def subject(self) -> Subject: ...
    def positions(self, ask: Ask, seconds: float) -> int:
        """Of the sequence, to the end of the longest answer: what a batch is budgeted by. Without any audio."""
        ...

    def prepare(self, ask: Ask, clip: Clip | None) -> Any:
        """InputError where it cannot be asked: the row fails, no other."""
        ...

    def answer(self, prepared: Sequence[Any], max_new_tokens: int) -> list[Answered]:
        """RunError where nobody answers: the evaluation stops, and goes on later."""
        ...
