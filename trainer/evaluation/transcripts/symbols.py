"""Symbols, punctuation and diacritics, as Whisper's normalisers treat them.

A character's Unicode category decides: M (marks), S (symbols) and P (punctuation) become a space. Each table keeps
what it has found out of a character, so that most characters cost one look-up.
"""

import unicodedata

# Letters that are one code point, and that no decomposition takes apart.
LETTERS = {
    "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "ß": "ss", "ẞ": "SS", "đ": "d", "Đ": "D",
    "ð": "d", "Ð": "D", "þ": "th", "Þ": "th", "ł": "l", "Ł": "L",
}  # fmt: skip


class Table(dict[int, str]):
    """For `str.translate`. `kept`: characters that stay; `plain`: letters lose their diacritics."""

    def __init__(self, plain: bool, kept: str = "") -> None:
        self.plain = plain
        super().__init__({ord(character): character for character in kept})

    def __missing__(self, code: int) -> str:
        self[code] = found = self.of(chr(code))
        return found

    def of(self, character: str) -> str:
        if self.plain and character in LETTERS:
            return LETTERS[character]
        category = unicodedata.category(character)
        if self.plain and category == "Mn":
            return ""
        return " " if category[0] in "MSP" else character


WITH_DIACRITICS = Table(plain=False)
PLAIN = Table(plain=True)
PLAIN_WITH_MONEY = Table(plain=True, kept=".%$¢€£")  # what numbers are written with


def without_symbols(text: str) -> str:
    """Diacritics stay (NFKC)."""
    return unicodedata.normalize("NFKC", text).translate(WITH_DIACRITICS)


def without_symbols_and_diacritics(text: str) -> str:
    """NFKD."""
    return unicodedata.normalize("NFKD", text).translate(PLAIN)


def without_symbols_but_money(text: str) -> str:
    """The same, but for what numbers are written with."""
    return unicodedata.normalize("NFKD", text).translate(PLAIN_WITH_MONEY)
