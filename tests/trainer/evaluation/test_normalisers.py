"""Whisper's normalisers, against the published code and against cases written by hand."""

import random

import pytest
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from coat.trainer.evaluation.transcripts.english_numbers import READERS, write_numbers
from coat.trainer.evaluation.transcripts.error_rate import Edits, character_edits, word_edits
from coat.trainer.evaluation.transcripts.spelling import american_spelling, american_spellings
from coat.trainer.evaluation.transcripts.whisper_basic import normalise_basic
from coat.trainer.evaluation.transcripts.whisper_english import ENDINGS, WORDS, normalise_english

PUBLISHED = EnglishTextNormalizer(american_spellings())

CASES = {
    "Mr. Brown isn't at St. Paul's.": "mister brown is not at saint paul is",
    "He's been gone, she'd done it; they've got it": "he has been gone she had done it they have got it",
    "[noise] Uh, hello (laughs) <unk> there!": " hello there ",
    "twenty-one colours": "21 colors",
    "two hundred and five aeroplanes": "205 airplanes",
    "one oh one Main Street": "101 main street",
    "twenty million dollars": "$20000000",
    "two dollars and seven cents": "$2.07",
    "zero point five percent of it": "0.5% of it",
    "the nineteen sixties, and the twenty first of May": "the 1960s and the 21st of may",
    "double five, triple zero": "55000",
    "three and a half": "3.5",
    "one of the ones": "one of the ones",
    "minus ten degrees": "-10 degrees",
    "1,000,000 people": "1000000 people",
    "naïve Œuvre straße": "naive oeuvre strasse",
    "I'ma gonna wanna": "i am going to going to want to",
    "": "",
}


@pytest.mark.parametrize("text", list(CASES))
def test_english_cases(text: str) -> None:
    said = normalise_english(text)
    assert said.split() == CASES[text].split()
    assert said == PUBLISHED(text)


def test_english_is_the_published_one_on_random_text() -> None:
    """Words that mean something to it, with everything between them that it cares for."""
    rng = random.Random(7)
    words = [*READERS, *WORDS, *ENDINGS, "cat", "it", "Mr.", "$5", "£3.50", "5%", "7.25", "1,000", "00", "¢7",
             "and a half",
             "'", "[noise]", "(laughs)", "naïve", "1960s", "2nd st", "x2", "twenty-one", "$2 and ¢7", "日本語", "+3",
             "1.2.3"]  # fmt: skip
    for _ in range(3000):
        text = "".join(
            str(rng.choice(words)) + rng.choice([" ", " ", "", ". ", ", ", " '"]) for _ in range(rng.randint(0, 9))
        )
        try:
            expected = PUBLISHED(text)
        except (ValueError, TypeError):  # the published code stops at some of them
            continue
        assert normalise_english(text) == expected, text


def test_basic_is_the_published_one() -> None:
    texts = [
        "Ça va, Éric? <x> (bruit)",
        "Straße — ÆON",
        "हिन्दी में",
        "你好，世界！",
        "e\u0301tude  Ⅳ ½",
        "«Да»",
        "한국어 abc",
        "",
    ]
    for text in texts:
        assert normalise_basic(text) == BasicTextNormalizer()(text)
        assert normalise_basic(text, remove_diacritics=True) == BasicTextNormalizer(remove_diacritics=True)(text)
        assert normalise_basic(text, split_letters=True) == BasicTextNormalizer(split_letters=True)(text)


def test_spellings_are_those_that_are_published() -> None:
    package = pytest.importorskip("whisper_normalizer.english", reason="pip install .[nemo]")
    theirs = package.EnglishSpellingNormalizer().mapping
    assert american_spellings() == {british: american for british, american in theirs.items() if " " not in british}
    assert american_spelling("the colour of  jewellery") == "the color of jewelry"


def test_a_word_that_is_no_number_ends_one() -> None:
    assert write_numbers("twenty cats and five") == "20 cats and 5"


def test_edits_are_counted_by_kind() -> None:
    assert word_edits("a b c", "a x c") == Edits(1, 0, 0, 3)
    assert word_edits("a b c", "a c") == Edits(0, 1, 0, 3)
    assert word_edits("a b c", "a b b c") == Edits(0, 0, 1, 3)
    assert word_edits("a b c", "") == Edits(0, 3, 0, 3)
    assert word_edits("", "a b") == Edits(0, 0, 2, 0)
    assert character_edits("abc", "abd") == Edits(1, 0, 0, 3)
    assert character_edits("a b", "ab") == Edits(0, 1, 0, 3)
