"""Questions found again in other texts: under another template, with letters or without, among other turns.

A row's question lies in a text that holds its words, one behind the other, and the words of each of its choices, in
whatever order. So "(A) ..." for "A. ...", another instruction around it, or a chat before it, hide nothing. What is
so short that it stands in many texts ("What is heard?") must be the whole prompt.
"""

from collections.abc import Iterable, Sequence

from coat.manifests import Utterance
from coat.trainer.evaluation.choices import normalise

ANCHOR = 4  # first words, by which questions are looked for
LEAST = 3  # words of a question that is looked for inside of other texts
ENOUGH = 5  # words of it and its choices together

Question = tuple[str, tuple[str, ...]]  # words of the question, and of its choices


class Questions:
    """Of rows; `look_in` each text that may hold some of them, then ask for the rows that were `found`."""

    def __init__(self, rows: Iterable[Utterance]) -> None:
        self.by_words: dict[str, set[Question]] = {}
        self.lengths: dict[tuple[str, ...], set[int]] = {}  # of questions in words, by how they begin
        for row in rows:
            if question := question_of(row):
                words = question[0].split()
                self.by_words.setdefault(question[0], set()).add(question)
                self.lengths.setdefault(tuple(words[:ANCHOR]), set()).add(len(words))
        self.anchors = sorted({len(anchor) for anchor in self.lengths})
        self.seen: set[Question] = set()

    def look_in(self, prompt: str, beside: Sequence[str] = ()) -> None:
        """A prompt, and what a student reads with it: choices that are kept apart, turns before it."""
        whole = normalise(prompt)
        words = " ".join([whole, *map(normalise, beside)]).split()
        padded = f" {' '.join(words)} "
        self.seen |= self.by_words.get(whole, set())
        for at in range(len(words)):
            for anchor in self.anchors:
                for length in self.lengths.get(tuple(words[at : at + anchor]), ()):
                    for question in self.by_words.get(" ".join(words[at : at + length]), ()):
                        if question not in self.seen and lies_in(question, padded):
                            self.seen.add(question)

    def found(self, row: Utterance) -> bool:
        return question_of(row) in self.seen


def question_of(row: Utterance) -> Question | None:
    words = normalise(row.prompt or "")
    return (words, tuple(sorted({normalise(choice) for choice in row.choices}))) if words else None


def lies_in(question: Question, padded: str) -> bool:
    """`padded`: normalised words, with a space on either side."""
    words, choices = question
    counts = [len(part.split()) for part in (words, *choices)]
    if counts[0] < LEAST or sum(counts) < ENOUGH or f" {words} " not in padded:
        return False
    rest = padded.replace(f" {words} ", " \0 ", 1)  # a choice that the question names must stand there once more
    return all(f" {choice} " in rest for choice in choices if choice)
