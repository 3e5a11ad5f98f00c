"""Which choice an answer names: the strict rule, one for all benchmarks.

One choice, named without doubt, by its letter or by its text; else the answer is unparsed. Never a guess.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from coat.trainer.evaluation.templates import LETTERS

THOUGHT = re.compile(r".*</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)  # a reasoning model's own marks
FINAL = re.compile(r".*(?:^|\n)\W*(?:final\s+)?answer\s*:", re.DOTALL | re.IGNORECASE)  # "Answer: ..." at the end
ALONE = re.compile(r"\W*([A-Za-z])[^\w#♯♭+]*")  # nothing else
LEADING = re.compile(r"\W*(?:\(([A-Za-z])\)|([A-Z])\s*[.):])(?=\s|$)")  # (b) ..., B. ..., B) ..., B: ...
# "answer is (B)", "option B.", "the answer is B because": but not "the answer is A dog", or "C:maj".
SAID = re.compile(
    r"\b(?i:answer|choice|option)(?:\s+(?i:is))?\s*:?\s*[*\"']*"
    r"(?:\(([A-Za-z])\)|([A-Z])(?=[.,;:!?*\"']*(?:\s*$|(?<=[.,;:!?*\"'])\s)|\s+(?:because|since|as|and)\b))"
)
WORD = re.compile(r"(?:(?<!\w)-(?=\d))?[\w#♯♭%+]+")  # C# is not C, and -5 is not 5
EDGES = ".,;:!?\"'`*"


@dataclass(frozen=True)
class Named:
    """The index of the choice that an answer names, or None, and why."""

    index: int | None
    why: str


def normalise(text: str) -> str:
    """Lower case, words alone, one space between them."""
    return " ".join(WORD.findall(text.lower()))


def literal(text: str) -> str:
    """Lower case, with all its marks but those around words."""
    return " ".join(word for part in text.lower().split() if (word := part.strip(EDGES)))


@lru_cache(1 << 14)
def reading(choices: tuple[str, ...]) -> Callable[[str], str]:
    """How texts are compared: by words, unless choices differ by marks alone ("C:maj/1", "C:maj(1)")."""
    by_words, by_marks = (len({read(c) for c in choices}) for read in (normalise, literal))
    return normalise if by_words == by_marks else literal


def same_choice(a: str, b: str, choices: tuple[str, ...]) -> bool:
    """Whether two texts are the same one of these choices."""
    read = reading(choices)
    return read(a) == read(b)


@lru_cache(1 << 16)  # an answer is read when it comes, and again when all are scored
def named_choice(answer: str, choices: tuple[str, ...]) -> Named:
    """Of an answer that is not empty. Equal choices are one: the first of them stands for all."""
    said = FINAL.sub("", THOUGHT.sub("", answer)).strip()
    if not said:
        return Named(None, "it says nothing behind its thoughts")
    read = reading(choices)
    words, texts = read(said), [read(c) for c in choices]
    letter = named_letter(said, len(choices))
    by_letter = None if letter is None else texts.index(texts[LETTERS.index(letter)])
    by_text = texts.index(words) if words and words in texts else None
    if by_letter is not None and by_text is None and letter is not None:
        # What stands for the letter, or behind it, may be the text of another choice.
        behind = read(LEADING.sub("", said))
        by_text = next((texts.index(t) for t in (behind, letter.lower()) if t in texts), None)
    if by_letter is not None and by_text not in (None, by_letter):
        return Named(None, f"the letter of {choices[by_letter]!r}, and the text of {choices[by_text or 0]!r}")
    if by_letter is not None:
        return Named(by_letter, "its letter")
    if by_text is not None:
        return Named(by_text, "its text")
    found = sorted(named_texts(words, texts))
    if len(found) == 1:
        return Named(found[0], "names it, and no other choice")
    listed = ", ".join(repr(choices[i]) for i in found)
    return Named(None, f"names {len(found)} choices: {listed}" if found else "names no choice")


def named_letter(said: str, count: int) -> str | None:
    """A letter of one of so many choices, that is no word: alone, in brackets, before a mark, behind "answer is"."""
    found = ALONE.fullmatch(said) or LEADING.match(said)
    letters = {next(g for g in one.groups() if g).upper() for one in ([found] if found else SAID.finditer(said))}
    letter = letters.pop() if len(letters) == 1 else None
    return letter if letter is not None and LETTERS.index(letter) < count else None


def named_texts(words: str, texts: Sequence[str]) -> set[int]:
    """Choices whose text stands there as whole words: the longest at each place, and the first of equal ones."""
    padded, found = f" {words} ", set()
    for i, text in sorted(enumerate(texts), key=lambda one: -len(one[1])):
        if text and texts.index(text) == i and f" {text} " in padded:
            found.add(i)
            padded = padded.replace(f" {text} ", " \0 ")
    return found
