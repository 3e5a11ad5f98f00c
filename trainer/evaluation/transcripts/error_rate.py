"""Word and character errors of a transcript: substitutions, deletions, insertions (jiwer)."""

from dataclasses import dataclass
from functools import lru_cache


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


def edits(found: object, length: int) -> Edits:
    return Edits(*(getattr(found, name) for name in ("substitutions", "deletions", "insertions")), length)


LOWER_IS_BETTER = frozenset(["wer", "cer", "substitutions", "deletions", "insertions"])  # metrics of benchmarks
