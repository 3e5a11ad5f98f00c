"""British spellings to American ones, as Whisper's English normaliser has them.

spelling.txt, a group a line: `BRITISH AMERICAN ENDING ...`; each ending makes a pair, `-` is none. What is listed is
listed: other words stay as they are, since error rates that are to be compared depend on it.
"""

from functools import cache
from importlib.resources import files


def american_spelling(text: str) -> str:
    """Word by word; one space between them."""
    spellings = american_spellings()
    return " ".join(spellings.get(word, word) for word in text.split())


@cache
def american_spellings() -> dict[str, str]:
    found = {}
    for line in (
        (files("coat.trainer.evaluation.transcripts") / "spelling.txt").read_text(encoding="utf-8").splitlines()
    ):
        british, american, *endings = line.split()
        for ending in ("" if e == "-" else e for e in endings):
            found[british + ending] = american + ending
    return found
