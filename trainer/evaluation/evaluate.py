"""Accuracy over a manifest's rows: multiple choice where a row has choices, else exact match.

A prediction that is missing (audio that cannot be decoded or is too long) or unparsed (no choice, or several, named)
counts as wrong; it is never replaced by a guess, and its rate is reported.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from coat.manifests import AudioError, InputError, Utterance, decode
from coat.trainer.generation.generate import MAX_NEW_TOKENS, Answer, Audio, Question, Trained


class QuestionRow(Protocol):
    """A manifest's utterance, or a sample of shards."""

    @property
    def id(self) -> str: ...
    @property
    def response(self) -> str | None: ...
    @property
    def choices(self) -> tuple[str, ...]: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


@dataclass
class Score:
    """Counts of one group of rows. `chance` is what guessing among the choices would give.

    `cut`: answers that came to the limit of tokens before their end.
    """

    rows: int = 0
    right: int = 0
    unparsed: int = 0
    missing: int = 0
    cut: int = 0
    chance_sum: float = 0.0

    @property
    def accuracy(self) -> float:
        return self.right / self.rows if self.rows else 0.0

    @property
    def chance(self) -> float:
        return self.chance_sum / self.rows if self.rows else 0.0

    @property
    def unparsed_rate(self) -> float:
        """Of predictions that are missing or name no single choice."""
        return (self.unparsed + self.missing) / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Prediction:
    id: str
    prediction: str | None  # None: missing
    choice: str | None  # None: missing or unparsed
    answer: str
    right: bool
    is_cut: bool = False


@dataclass
class Evaluation:
    total: Score = field(default_factory=Score)
    by_task: dict[str, Score] = field(default_factory=dict)  # by the row's `task`, where it has one
    predictions: list[Prediction] = field(default_factory=list)

    def add(self, row: QuestionRow, text: str | None) -> None:
        """Score the text that the student answered; None: it is missing."""
        answer = row.response or ""
        choice = None if text is None else parse_choice(text, row.choices)
        right = choice is not None and normalise(choice) == normalise(answer)
        scores = [self.total]
        if "task" in row.extra:
            scores.append(self.by_task.setdefault(str(row.extra["task"]), Score()))
        for score in scores:
            score.rows += 1
            score.right += right
            score.missing += text is None
            score.cut += is_cut(text)
            score.unparsed += text is not None and choice is None
            score.chance_sum += 1 / len(row.choices) if row.choices else 0.0
        self.predictions.append(Prediction(row.id, text, choice, answer, right, is_cut(text)))


def is_cut(text: str | None) -> bool:
    return isinstance(text, Answer) and text.is_cut


def evaluate(
    trained: Trained,
    rows: Iterable[Utterance],
    *,
    batch_size: int = 16,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Ask each row's prompt, with its choices, and compare with its response.

    Rows without a prompt or response are not asked. InputError where none has both.
    """
    questions = [u for u in rows if u.prompt is not None and u.response is not None]
    if not questions:
        raise InputError("no row has a prompt and a response; there is nothing to evaluate")
    result = Evaluation()
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        for utterance, text in zip(batch, ask_rows(trained, batch, max_new_tokens), strict=True):
            result.add(utterance, text)
        on_rows(len(batch))
    return result


def ask_rows(trained: Trained, rows: Sequence[Utterance], max_new_tokens: int) -> list[str | None]:
    """An answer a row; None where its audio cannot be decoded, or is too short or long for the student."""
    questions: dict[int, Question] = {}
    for i, u in enumerate(rows):
        try:
            audio = None if u.text_only else read_audio(trained, u)
        except (AudioError, InputError):
            continue  # counted as missing
        questions[i] = Question(audio, u.prompt or "", u.choices, u.turns)
    answers: list[str | None] = [None] * len(rows)
    if questions:
        texts = trained.ask_many(list(questions.values()), max_new_tokens=max_new_tokens)
        for i, text in zip(questions, texts, strict=True):
            answers[i] = text
    return answers


def read_audio(trained: Trained, utterance: Utterance) -> Audio:
    """AudioError or InputError where it cannot be decoded, or is too short or long for the student."""
    clip = decode(utterance.audio, utterance.offset, utterance.duration)
    trained.student.check_audio(clip.at(trained.student.sample_rate))
    return clip.samples_T, clip.rate


def parse_choice(text: str, choices: Sequence[str]) -> str | None:
    """The one choice that a prediction is or names as whole words; without choices the prediction itself."""
    words = normalise(text)
    if not choices:
        return text if words else None
    named = [c for c in choices if f" {normalise(c)} " in f" {words} "]
    exact = [c for c in named if normalise(c) == words]
    candidates = exact or named
    return candidates[0] if len(candidates) == 1 else None


def normalise(text: str) -> str:
    """Lower case, words alone, one space between them."""
    return " ".join(re.findall(r"\w+", text.lower()))


def majority_baseline(rows: Iterable[Utterance]) -> float:
    """Accuracy of always giving each prompt's most common response: what there is to gain without listening."""
    by_prompt: dict[str, Counter[str]] = {}
    for u in rows:
        if u.prompt is not None and u.response is not None:
            by_prompt.setdefault(u.prompt, Counter())[normalise(u.response)] += 1
    total = sum(sum(c.values()) for c in by_prompt.values())
    return sum(c.most_common(1)[0][1] for c in by_prompt.values()) / total if total else 0.0
