"""The letter rule of AIR-Bench and MMSU: the first character of an answer, else the one before the last."""

from collections.abc import Mapping
from typing import Any

from coat.trainer.evaluation.benchmark import QuestionRow, Verdict

LETTERS = "ABCD"


def letter_of(answer: str) -> str | None:
    """None: their code leaves such an answer out, and the count gets smaller.

    Flaws, kept: "Child" is C, "A dog barks." is A whatever is meant, "The answer is B!?" is nothing. None of their
    scripts knows a letter behind D.
    """
    said = answer.strip().replace("\n", "")
    if not said or said == "None":
        return None
    if said[0] in LETTERS:
        return said[0]
    return said[-2] if len(said) > 1 and said[-2] in LETTERS else None


def by_letter(row: QuestionRow, answer: str) -> Verdict:
    """Of equal choices the first is the right one, as in AIR-Bench's script."""
    letter = letter_of(answer)
    if letter is None:
        return Verdict(False, "neither its first letter nor its last but one is A to D", unparsed=True)
    at = LETTERS.index(letter)
    choice = row.choices[at] if at < len(row.choices) else None
    right = choice is not None and row.choices.index(row.response or "") == at
    return Verdict(right, f"read as {letter}", choice)


def lettered_choices(record: Mapping[str, Any], required: int = 2) -> list[str]:
    """choice_a to choice_d, as far as they are given. ValueError where a gap is between them, or one of the first is
    missing."""
    values = [record.get(f"choice_{letter}") for letter in "abcd"]
    found = [str(value) for value in values if value is not None and str(value) != ""]
    if len(found) < required or found != [str(v) for v in values[: len(found)]]:
        raise ValueError("expected choice_a, choice_b, and no gap before choice_c and choice_d")
    return found
