"""Numbers that are spoken out, written in digits, as Whisper's English normaliser does.

`two hundred and five` is `205`, `one oh one` is `101`, `twenty million dollars` is `$20000000`, `three point five
percent` is `3.5%`, `nineteen sixties` is `1960s`. `one` and `ones` stay words. Quirks of the published code are kept
where they decide what comes out; tests compare the two on random words.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

ZEROS = ("o", "oh", "zero")
ONES = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17,
    "eighteen": 18, "nineteen": 19,
}  # fmt: skip
TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
MULTIPLIERS = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "quadrillion": 10**15,
    "quintillion": 10**18, "sextillion": 10**21, "septillion": 10**24, "octillion": 10**27, "nonillion": 10**30,
    "decillion": 10**33,
}  # fmt: skip
IRREGULAR_ORDINALS = {"first": (1, "st"), "second": (2, "nd"), "third": (3, "rd"), "fifth": (5, "th")} | {
    "zeroth": (0, "th"),
    "twelfth": (12, "th"),
}
# Words that end a number, with its value and what is written behind it.
LAST_ONES = {
    **{"sixes" if word == "six" else f"{word}s": (number, "s") for word, number in ONES.items()},
    **IRREGULAR_ORDINALS,
    **{
        f"{word}{'h' if word[-1] == 't' else 'th'}": (n, "th") for word, n in ONES.items() if n > 3 and n not in (5, 12)
    },
}
LAST_TENS = {
    f"{word[:-1]}{ending}": (number, suffix)
    for word, number in TENS.items()
    for ending, suffix in (("ies", "s"), ("ieth", "th"))
}
LAST_MULTIPLIERS = {f"{word}{suffix}": (n, suffix) for word, n in MULTIPLIERS.items() for suffix in ("s", "th")}
SIGNS = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
CURRENCIES = {
    name: sign
    for singular, sign in (("pound", "£"), ("euro", "€"), ("dollar", "$"), ("cent", "¢"))
    for name in (singular, f"{singular}s")
}
REPEATS = {"double": 2, "triple": 3}
PREFIXES = frozenset([*SIGNS.values(), *CURRENCIES.values()])
DIGITS_FOLLOW = frozenset([*ZEROS, *ONES, *TENS])  # what may stand behind "point"
FIGURES = re.compile(r"\d+(\.\d+)?")
AND_A_HALF = re.compile(r"\band\s+a\s+half\b")
LETTER_DIGIT, DIGIT_LETTER = re.compile(r"([a-z])([0-9])"), re.compile(r"([0-9])([a-z])")
SUFFIX_APART = re.compile(r"([0-9])\s+(st|nd|rd|th|s)\b")
CENTS = re.compile(r"([€£$])([0-9]+) (?:and )?¢([0-9]{1,2})\b")
ONLY_CENTS = re.compile(r"[€£$]0.([0-9]{1,2})\b")
WRITTEN_ONE = re.compile(r"\b1(s?)\b")

Value = int | str | None  # of the number that is being read: an integer, or digits as they were said


def write_numbers(text: str) -> str:
    """Words of lower case, with spaces between them, to words and figures."""
    text = " ".join(NumberReader(separate(halves(text)).split()).read())
    text = CENTS.sub(lambda m: f"{m[1]}{m[2]}.{int(m[3]):02d}", text)
    text = ONLY_CENTS.sub(lambda m: f"¢{int(m[1])}", text)
    return WRITTEN_ONE.sub(r"one\1", text)


def halves(text: str) -> str:
    """`three and a half` as `three point five`."""
    *before, last = AND_A_HALF.split(text)
    parts = []
    for part in before:
        if words := part.split():
            is_number = words[-1] in DIGITS_FOLLOW or words[-1] in MULTIPLIERS
            parts += [part, "point five" if is_number else "and a half"]
    return " ".join([*parts, last] if last.strip() else parts)


def separate(text: str) -> str:
    """A space between letters and figures, but for suffixes (`1960s`)."""
    text = DIGIT_LETTER.sub(r"\1 \2", LETTER_DIGIT.sub(r"\1 \2", text))
    return SUFFIX_APART.sub(r"\1\2", text)


def is_figures(word: str | None) -> bool:
    return word is not None and FIGURES.fullmatch(word) is not None


class NumberReader:
    """Reads words one by one. `value` is the number so far, `prefix` the sign or currency to write before it."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.written: list[str] = []
        self.value: Value = None
        self.prefix = ""
        self.before: str | None = None  # the neighbours of the word that is read
        self.after: str | None = None
        self.skips = False  # the next word has been read already

    def read(self) -> list[str]:
        for i, word in enumerate(self.words):
            if self.skips:
                self.skips = False
                continue
            self.before = self.words[i - 1] if i else None
            self.after = self.words[i + 1] if i + 1 < len(self.words) else None
            if is_figures(word[1:] if word[0] in PREFIXES else word):
                self.figures(word)
            elif reads := READERS.get(word):
                reads(self, word)
            else:
                self.plain(word)
        self.end()
        return self.written

    def write(self, text: Value) -> None:
        """Ends the number."""
        self.written.append(f"{self.prefix}{text}")
        self.value, self.prefix = None, ""

    def end(self) -> None:
        if self.value is not None:
            self.write(self.value)

    def plain(self, word: str) -> None:
        self.end()
        self.write(word)

    def figures(self, word: str) -> None:
        if isinstance(self.value, str) and self.value.endswith("."):
            self.value += word  # decimals; parts of an address
            return
        self.end()
        if word[0] in PREFIXES:
            self.prefix, word = word[0], word[1:]
        number = Fraction(word)
        self.value = number.numerator if number.denominator == 1 else word

    def zero(self, word: str) -> None:
        self.value = f"{self.value or ''}0"

    def small(self, word: str) -> None:
        self.value = self.with_small(ONES[word] if word in ONES else TENS[word])

    def last_small(self, word: str) -> None:
        number, suffix = LAST_ONES[word] if word in LAST_ONES else LAST_TENS[word]
        self.write(f"{self.with_small(number)}{suffix}")

    def with_small(self, number: int) -> int | str:
        """The value with a number below 100 said behind it: added where there is room for it, else written behind
        it."""
        value, digits = self.value, str(number)
        if value is None:
            return number
        if number < 20 and (isinstance(value, str) or self.before in ONES):
            fills_zero = self.before in TENS and number < 10  # "oh twenty one"
            return str(value)[:-1] + digits if fills_zero else f"{value}{digits}"
        if isinstance(value, str):
            return f"{value}{digits}"
        return value + number if value % (10 if number < 10 else 100) == 0 else f"{value}{digits}"

    def multiplier(self, word: str) -> None:
        number = MULTIPLIERS[word]
        product = self.times(number)
        if product is None:
            self.end()
        self.value = number if product is None else product

    def last_multiplier(self, word: str) -> None:
        number, suffix = LAST_MULTIPLIERS[word]
        product = self.times(number)
        if product is None:
            self.end()
        self.write(f"{number if product is None else product}{suffix}")

    def times(self, number: int) -> int | None:
        """What is below a thousand, multiplied; None where there is no value, or no whole number comes out."""
        value = self.value
        if isinstance(value, int):
            return value // 1000 * 1000 + value % 1000 * number
        try:
            product = Fraction(value or "") * number
        except ValueError:
            return None
        return product.numerator if product.denominator == 1 else None

    def sign(self, word: str) -> None:
        self.end()
        if self.after in READERS or is_figures(self.after):
            self.prefix = SIGNS[word]
        else:
            self.write(word)

    def currency(self, word: str) -> None:
        if self.value is None:
            self.write(word)
        else:
            self.prefix = CURRENCIES[word]
            self.end()

    def percent(self, word: str) -> None:
        if self.value is None or (word == "per" and self.after != "cent"):
            self.plain(word)
        else:
            self.write(f"{self.value}%")
            self.skips = word == "per"

    def conjunction(self, word: str) -> None:
        """`two hundred and five`: left out there alone."""
        if not self.number_follows() or self.before not in MULTIPLIERS:
            self.plain(word)

    def repeat(self, word: str) -> None:
        """`double five`"""
        if self.after in ZEROS or self.after in ONES:
            self.value = f"{self.value or ''}{str(ONES.get(self.after, 0)) * REPEATS[word]}"
            self.skips = True
        else:
            self.plain(word)

    def point(self, word: str) -> None:
        if not self.number_follows():
            self.plain(word)
        elif self.after in DIGITS_FOLLOW or is_figures(self.after):
            self.value = f"{self.value or ''}."

    def number_follows(self) -> bool:
        return self.after in READERS or is_figures(self.after)


READERS: dict[str | None, Callable[[NumberReader, str], None]] = {
    **dict.fromkeys(ZEROS, NumberReader.zero),
    **dict.fromkeys([*ONES, *TENS], NumberReader.small),
    **dict.fromkeys([*LAST_ONES, *LAST_TENS], NumberReader.last_small),
    **dict.fromkeys(MULTIPLIERS, NumberReader.multiplier),
    **dict.fromkeys(LAST_MULTIPLIERS, NumberReader.last_multiplier),
    **dict.fromkeys(SIGNS, NumberReader.sign),
    **dict.fromkeys(CURRENCIES, NumberReader.currency),
    **dict.fromkeys(["per", "percent"], NumberReader.percent),
    **dict.fromkeys(REPEATS, NumberReader.repeat),
    "and": NumberReader.conjunction,
    "point": NumberReader.point,
}
