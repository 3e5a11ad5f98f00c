"""Word and character errors of a transcript: substitutions, deletions, insertions (jiwer)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jiwer


@dataclass(frozen=True)
class Edits:
    """What makes a reference of `length` words (or characters) into the hypothesis. Adds up over a corpus."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions


@lru_cache(1 << 16)
def word_edits(reference: str, hypothesis: str) -> Edits:
    """Of texts that are normalised already; words are what spaces part."""
    import jiwer

    found = jiwer.process_words(spaced(reference), spaced(hypothesis))
    return edits(found, len(reference.split()))


@lru_cache(1 << 16)
def character_edits(reference: str, hypothesis: str) -> Edits:
    """The same of characters; a space is one."""
    import jiwer

    reference = spaced(reference)
    return edits(jiwer.process_characters(reference, spaced(hypothesis)), len(reference))


def spaced(text: str) -> str:
    return " ".join(text.split())


def edits(found: "jiwer.WordOutput | jiwer.CharacterOutput", length: int) -> Edits:
    return Edits(found.substitutions, found.deletions, found.insertions, length)


LOWER_IS_BETTER = frozenset(["wer", "cer", "substitutions", "deletions", "insertions"])  # metrics of benchmarks
