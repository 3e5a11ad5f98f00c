"""The strict rule: which choice an answer names, by cases that are judged by eye."""

import pytest

from coat.trainer.evaluation.choices import named_choice

PETS = ("A dog", "a cat", "The small dog barks", "a bird")
CASES = [
    # by text
    ("A dog", 0), ("a DOG.", 0), ("It is a cat!", 1), ("the small dog barks", 2),
    ("I hear the small dog barks here", 2),
    ("**a bird**", 3), ("Answer: a cat", 1), ("The answer is: a cat", 1),
    # by letter
    ("B", 1), ("b", 1), ("(B)", 1), ("B.", 1), ("B) a cat", 1), ("(b) a cat", 1), ("B: a cat, as it meows", 1),
    ("The answer is B", 1), ("The correct option is (C).", 2), ("Option D", 3), ("answer: B", 1),
    ("Answer: (D) a bird", 3), ("The answer is A dog.", 0), ("the answer is a bird", 3),
    ("The answer is B because of it", 1),
    ("B. a cat, and no dog", 1),
    # neither
    ("", None), ("E", None), ("(E) a horse", None), ("a horse", None), ("a dog or a cat", None), ("dogs", None),
    ("A dog barks", 0), ("a cat and a bird", None), ("(B) a bird", None), ("B. A dog", None), ("A or B", None),
    ("The answer is A. No, the answer is B", None), ("I am a cat or (A)", 1),
    # thoughts are no answer
    ("<think>a dog, or a bird?</think> a cat", 1), ("It could be a dog.\nAnswer: a cat", 1),
    ("<think>a dog</think>", None),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "index"), CASES)
def test_named(answer: str, index: int | None) -> None:
    found = named_choice(answer, PETS)
    assert found.index == index, found.why
    assert found.why


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        ("man", ("woman", "man"), 1),  # no part of a word
        ("no", ("yes", "no"), 1),
        ("I", ("I", "V"), 0),  # a chord: text, and no letter of these
        ("A", ("C", "A", "G"), None),  # the text of the second, and the letter of the first
        ("2", ("1", "2", "3"), 1),
        ("12", ("1", "2", "12"), 2),
        ("equal", ("equal", "Equal", "other"), 0),  # one choice, written twice
        ("B", ("equal", "Equal", "other"), 0),
        ("naïve art", ("Naïve art", "naive art"), 0),
        ("A man's voice", ("a man's voice", "a woman's voice"), 0),
        ("A big dog", ("A", "B"), 0),
        ("C# minor", ("C minor", "C# minor"), 1),
        ("It is in C.", ("C#", "C", "D"), 1),
        ("(C) E", ("G", "D", "E", "C"), 2),
        ("C:maj(1)", ("C:maj/1", "C:maj(1)"), 1),
        ("The answer is C:maj/1.", ("E:min", "A:7", "C:maj/1"), 2),
        ("-5", ("5", "-5"), 1),
        ("The answer is D.", ("G", "A#", "D", "E"), None),  # text of the third, letter of the fourth
    ],
)
def test_choices_of_few_words(answer: str, choices: tuple[str, ...], index: int | None) -> None:
    assert named_choice(answer, choices).index == index
