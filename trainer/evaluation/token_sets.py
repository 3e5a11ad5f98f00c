"""The rule of MMAU and MMAR: sets of lower-cased words."""

import re
from collections.abc import Sequence
from functools import lru_cache

WORD = re.compile(r"\b\w+\b")


@lru_cache(1 << 16)
def words(text: str) -> frozenset[str]:
    return frozenset(WORD.findall(text.lower()))


def matches(answer: str, prediction: str, choices: Sequence[str]) -> bool:
    """All words of the answer are said, and none that only other choices have.

    Flaws, kept: "(A) ..." says a word of a choice "A dog"; words such as "the" belong to other choices; the letter
    alone is wrong; of choices with equal words all are the answer.
    """
    truth, said = words(answer), words(prediction)
    others = frozenset().union(*(w for c in choices if (w := words(c)) != truth)) - truth
    return bool(said) and truth <= said and not (said & others)
