"""Whisper's basic normaliser, for every language but English.

The rules are those of Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (appendix C), in our
own code; tests compare it with the published package.
"""

import re

from coat.trainer.evaluation.transcripts.symbols import without_symbols, without_symbols_and_diacritics

BRACKETED = re.compile(r"[<\[][^>\]]*[>\]]")
IN_PARENTHESES = re.compile(r"\([^)]+?\)")
SPACES = re.compile(r"\s+")


def normalise_basic(text: str, remove_diacritics: bool = False, split_letters: bool = False) -> str:
    """Lower case; what stands in brackets is dropped; symbols, marks and punctuation are spaces.

    Marks go, too: in scripts that write vowels as marks this removes vowels, as Whisper's does. `split_letters`: a
    space between letters, for scripts without spaces between words (graphemes, `\\X`). A space may be left at either
    end.
    """
    text = without_brackets(text.lower())
    text = (without_symbols_and_diacritics(text) if remove_diacritics else without_symbols(text)).lower()
    if split_letters:
        import regex  # a dependency of transformers; Python's re has no graphemes

        text = " ".join(regex.findall(r"\X", text))
    return SPACES.sub(" ", text)


def without_brackets(text: str) -> str:
    """Without `[noise]`, `<unk>` and `(laughs)`."""
    return IN_PARENTHESES.sub("", BRACKETED.sub("", text))
