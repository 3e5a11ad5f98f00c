"""Which choice an answer names: the strict rule, one for all benchmarks.

One choice, named without doubt, by its letter or by its text; else the answer is unparsed. Never a guess.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from coat.trainer.evaluation.templates import LETTERS

THOUGHT = re.compile(r".*</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)  # a reasoning model's own marks
FINAL = re.compile(r".*(?:^|\n)\W*(?:final\s+)?answer\s*:", re.DOTALL | re.IGNORECASE)  # "Answer: ..." at the end
ALONE = re.compile(r"\W*([A-Za-z])\W*")  # nothing else
LEADING = re.compile(r"\W*(?:\(([A-Za-z])\)|([A-Z])\s*[.):])(?=\s|$)")  # (b) ..., B. ..., B) ..., B: ...
SAID = re.compile(
    r"\b(?:answer|choice|option)(?:\s+is)?\s*:?\s*(?:\(([A-Za-z])\)|([A-Z])\b(?![\w'’]))", re.IGNORECASE
)
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Named:
    """The index of the choice that an answer names, or None, and why."""

    index: int | None
    why: str


def normalise(text: str) -> str:
    """Lower case, words alone, one space between them."""
    return " ".join(WORD.findall(text.lower()))


def named_choice(answer: str, choices: Sequence[str]) -> Named:
    """Of an answer that is not empty. Equal choices are one: the first of them stands for all."""
    said = FINAL.sub("", THOUGHT.sub("", answer)).strip()
    words = normalise(said)
    if not words and said == "":
        return Named(None, "it says nothing behind its thoughts")
    texts = [normalise(c) for c in choices]
    by_letter = letter_index(said, len(choices))
    same = texts.index(texts[by_letter]) if by_letter is not None else None
    exact = texts.index(words) if words and words in texts else None
    if exact is not None:
        if same is not None and same != exact:
            return Named(None, f"the text of {choices[exact]!r}, and the letter of {choices[same]!r}")
        return Named(exact, "the text of the choice")
    found = named_texts(words, texts)
    if same is not None:
        others = found - {same}
        if len(others) == 1 and same not in found and names_text_alone(said, words, texts, next(iter(others))):
            return Named(None, f"the letter of {choices[same]!r} with the text of {choices[next(iter(others))]!r}")
        return Named(same, "its letter")
    if len(found) == 1:
        return Named(next(iter(found)), "names it, and no other choice")
    if found:
        listed = ", ".join(repr(choices[i]) for i in sorted(found))
        return Named(None, f"names {len(found)} choices: {listed}")
    return Named(None, "names no choice")


def letter_index(said: str, count: int) -> int | None:
    """By a letter that cannot be a word: alone, in brackets, before a mark, or behind "answer is"."""
    found = ALONE.fullmatch(said) or LEADING.match(said)
    letters = [found] if found else list(SAID.finditer(said))
    indices = {LETTERS.index(next(g for g in one.groups() if g).upper()) for one in letters}
    index = indices.pop() if len(indices) == 1 else None
    return index if index is not None and index < count else None


def named_texts(words: str, texts: Sequence[str]) -> set[int]:
    """Choices whose text stands in the words, as whole words: the longest at each place, and the first of equal ones."""
    padded, found = f" {words} ", set()
    for i, text in sorted(enumerate(texts), key=lambda one: -len(one[1])):
        if text and texts.index(text) == i and f" {text} " in padded:
            found.add(i)
            padded = padded.replace(f" {text} ", " \0 ")
    return found


def names_text_alone(said: str, words: str, texts: Sequence[str], index: int) -> bool:
    """Whether what stands behind a leading letter is the text of a choice, and nothing else."""
    return words.partition(" ")[2] == texts[index] or normalise(LEADING.sub("", said)) == texts[index]
