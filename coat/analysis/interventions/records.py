"""What is kept of each row: numbers that stand for themselves, so that figures are sums over rows.

Of a row that has choices the answer is the likeliest of them, by the probability of all its tokens; of any other it is
what greedy decoding says along the true response. With generated answers it is the text, read by the strict rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from coat.analysis.interventions.kinds import UNTOUCHED
from coat.analysis.interventions.packing import Prompt
from coat.analysis.interventions.rows import Row
from coat.analysis.interventions.student import Measured, Question, Seen
from coat.trainer.data.collator import EncodedSample
from coat.trainer.data.samples import Sample
from coat.trainer.evaluation.benchmarks.manifest import ManifestQuestions
from coat.trainer.evaluation.choices import same_choice
from coat.trainer.evaluation.predictions import Prediction
from coat.trainer.evaluation.scoring import score_row
from coat.trainer.students.base import Student

QUESTIONS = ManifestQuestions()  # answers are read as those of a manifest
DIGITS = 6
LONGEST_VALUE = 100  # characters of an extra key's value that is kept, to group by


@dataclass(frozen=True)
class Item:
    """A question with what its record needs."""

    row: Row
    donor: Row | None
    question: Question
    answers: tuple[str, ...]
    by_choice: bool  # whether one of the answers is chosen; else they are what decoding is followed along
    donor_answer: int | None  # which of the answers is right of the donor's sound, where it is another and is known


def item_of(
    student: Student, row: Row, donor: Row | None, own: EncodedSample, theirs: EncodedSample, same_question: bool
) -> Item:
    """`theirs`: the row's question about the donor's sound. `same_question`: whether the donor's own is this one."""
    sample = row.texts
    response = sample.response or ""
    choices = tuple(dict.fromkeys(sample.choices))
    right = [i for i, choice in enumerate(choices) if same_choice(choice, response, choices)]
    answers, truth = (choices, right[0]) if right else ((response,), 0)
    donor_answer = None
    if donor is not None and same_question and donor.texts.response is not None:
        said = donor.texts.response
        if right:
            named = [i for i, choice in enumerate(choices) if same_choice(choice, said, choices)]
            donor_answer = next((i for i in named if i != truth), None)
        elif said != response:
            answers, donor_answer = (response, said), 1
    ids = tuple(tuple(student.chat.response_ids(answer)) for answer in answers)
    prompt = Prompt(own.ids[: own.response], own.features, ids)
    question = Question(row.number, prompt, Prompt(theirs.ids[: theirs.response], theirs.features), truth)
    return Item(row, donor, question, answers, bool(right), donor_answer)


def records_of(student: Student, items: Sequence[Item], measured: Measured) -> list[dict[str, Any]]:
    """A record a row; see the fields of `result`."""
    answer_R = measured.asked.answer_R.cpu().numpy()
    starts_A = np.searchsorted(answer_R, np.arange(answer_R[-1] + 2))  # where each answer's tokens begin
    apart_B = measured.apart_B.tolist()
    before, found, first = Tokens(measured, measured.untouched), [], 0
    after = {name: Tokens(measured, seen) for name, seen in measured.after.items()}
    for b, item in enumerate(items):
        spans = [slice(starts_A[a], starts_A[a + 1]) for a in range(first, first + len(item.answers))]
        first += len(item.answers)
        donor = None if item.donor is None else {"id": item.donor.texts.id, "response": item.donor.texts.response}
        record = {
            **identity(item.row),
            "prompt": item.row.texts.prompt,
            "response": item.row.texts.response,
            "answers": list(item.answers),
            "by_choice": item.by_choice,
            "donor": donor,
            "apart": None if item.donor is None else rounded(apart_B[b]),
            UNTOUCHED: result(student, item, b, spans, before, before),
        }
        for name, tokens in after.items():
            has_donor = item.donor is not None or not name.endswith(":other")
            record[name] = result(student, item, b, spans, before, tokens) if has_donor else None
        found.append(record)
    return found


def identity(row: Row) -> dict[str, Any]:
    extra = {k: str(v) for k, v in row.texts.extra.items() if isinstance(v, str | int | float)}
    groups = {k: v for k, v in extra.items() if len(v) <= LONGEST_VALUE}
    return {"number": row.number, "id": row.texts.id, "clip": row.clip, "extra": groups}


class Tokens:
    """A pass on the host, token by token."""

    def __init__(self, measured: Measured, seen: Seen) -> None:
        self.log_prob_R, self.said_R = host(seen.read.log_prob_R), host(seen.read.said_R)
        self.is_said_R = self.said_R == host(measured.asked.token_R)
        self.states_RD = seen.read.states_RD
        self.divergence_R = None if seen.divergence_R is None else host(seen.divergence_R)
        self.texts = seen.texts


def host(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def result(
    student: Student, item: Item, b: int, spans: Sequence[slice], before: Tokens, after: Tokens
) -> dict[str, Any]:
    """One row under one intervention.

    right, changed, donors   of the answer (see above); `donors` None: the donor's is the same, or not known
    exact                    whether greedy decoding says the true response and ends it
    log_probs                of each answer, of all its tokens
    kl                       mean over the true response's tokens, in nats, from the untouched distribution
    moved                    distance of the state that begins the answer from the untouched one
    text                     as it was generated
    """
    truth = spans[item.question.truth]
    log_probs = [float(after.log_prob_R[span].sum()) for span in spans]
    exact = bool(after.is_said_R[truth].all())
    words = slice(truth.start, max(truth.stop - 1, truth.start + 1))  # without the token that ends the turn
    if item.by_choice:
        chosen, was = np.argmax(log_probs), np.argmax([before.log_prob_R[span].sum() for span in spans])
        right, changed, donors = chosen == item.question.truth, chosen != was, chosen == item.donor_answer
    else:
        right, changed = exact, (after.said_R[words] != before.said_R[words]).any()
        donors = item.donor_answer is not None and after.is_said_R[spans[1].start : spans[1].stop - 1].all()
    found: dict[str, Any] = {}
    if after.texts:
        text, was_text = (decoded(student, tokens.texts[b]) for tokens in (after, before))
        right, changed, found = is_right(item.row.texts, text), text != was_text, {"text": text}
        if item.donor_answer is not None:
            donors = is_right(replace(item.row.texts, response=item.answers[item.donor_answer]), text)
    kl = 0.0 if after.divergence_R is None else float(after.divergence_R[truth].mean())
    moved = float((after.states_RD[truth.start] - before.states_RD[truth.start]).float().norm())
    return {
        "right": int(right),
        "changed": int(changed),
        "donors": None if item.donor_answer is None else int(donors),
        "exact": int(exact),
        "log_probs": list(map(rounded, log_probs)),
        "log_prob": rounded(log_probs[item.question.truth]),
        "kl": rounded(kl),
        "moved": rounded(moved),
        **found,
    }


def decoded(student: Student, ids: Sequence[int]) -> str:
    return student.tokenizer.decode(ids, skip_special_tokens=True).strip()


def is_right(sample: Sample, text: str) -> bool:
    scored = score_row(QUESTIONS, sample, Prediction(benchmark=QUESTIONS.name, id=sample.id, answer=text))
    return bool(scored.verdicts and scored.verdicts[1].right)


def rounded(value: float) -> float:
    return round(float(value), DIGITS)
