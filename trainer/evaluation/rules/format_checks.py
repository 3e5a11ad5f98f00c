"""Checks of a text's form: MMAU-Pro's instruction following. Each takes the answer and the parameters of its row.

As evaluate_mmau_pro_comprehensive.py has them, quirks and all ("Title" is <<...>>, paragraphs are parted by ***), but
for sentences: NLTK's trained tokenizer parts them there, marks, spaces and a few abbreviations here.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

Parameters = Mapping[str, Any]
Check = Callable[[str, Parameters], bool]
MOST = 999  # an upper bound that is not given
END = re.compile(r"(\S*?)([.!?]+)[\"')\]]*(?:\s+(?=(\S))|$)")  # the word before, the marks, what comes next
TITLES = frozenset(["mr", "mrs", "ms", "dr", "prof", "st", "vs", "jr", "sr", "gen", "rev", "mt"])


def listed(parameters: Parameters, key: str) -> list[str]:
    return str(parameters.get(key) or "").lower().split(", ")


def wanted(parameters: Parameters, key: str = "N", default: int = 0) -> int:
    value = parameters.get(key)
    return default if value is None else int(value)


def words(text: str) -> int:
    return len(text.split())


def sentences(text: str) -> int:
    count, rest = 0, 0  # where what is behind the last end begins
    for found in END.finditer(text):
        word, marks, then = found.groups()
        goes_on = (
            then is not None and then.islower() and (marks.startswith("..") or "." in word)
        )  # "p.m. it", "so... it"
        if not goes_on and not (marks == "." and word.lower().lstrip("(\"'") in TITLES):
            count += bool(text[rest : found.end()].strip(" .!?\n\t"))
            rest = found.end()
    return count + bool(text[rest:].strip())


def capital_words(text: str) -> int:
    return sum(word.isupper() for word in text.split())


def at_least(count: Callable[[str], int]) -> Check:
    return lambda text, p: count(text) >= wanted(p)


def at_most(count: Callable[[str], int]) -> Check:
    return lambda text, p: count(text) <= wanted(p)


def between(count: Callable[[str], int]) -> Check:
    return lambda text, p: wanted(p, "N1") <= count(text) <= wanted(p, "N2", MOST)


def exactly(count: Callable[[str], int]) -> Check:
    return lambda text, p: count(text) == wanted(p)


def found(pattern: str) -> Callable[[str], int]:
    return lambda text: len(re.findall(pattern, text))


def keyword_frequency(text: str, p: Parameters) -> bool:
    word = re.escape(str(p.get("keyword") or "").lower())
    return len(re.findall(rf"\b{word}\b", text.lower())) == wanted(p)


def letters_alone(text: str, kept: str = "") -> str:
    return re.sub(rf"[^a-zA-Z{kept}]", "", text).lower()


def sections(text: str, p: Parameters) -> bool:
    """Flaw, kept: an empty splitter parts everything."""
    parts = re.split(rf"\s*{re.escape(str(p.get('section_splitter') or ''))}\s*", text.strip())
    return len([part for part in parts if part.strip()]) == wanted(p)


def two_responses(text: str, p: Parameters) -> bool:
    parts = [part.lower().strip() for part in text.split("******")]
    return len(parts) == 2 and parts[0] != parts[1]


CHECKS: dict[str, Check] = {
    "Include Keywords": lambda text, p: all(word in text.lower() for word in listed(p, "keywords")),
    "Keyword Frequency": keyword_frequency,
    "Forbidden Words": lambda text, p: not any(word in text.lower() for word in listed(p, "forbidden_words")),
    "Number Paragraphs": exactly(lambda text: len([part for part in text.split("***") if part.strip()])),
    "Number Words (at least)": at_least(words),
    "Number Words (at most)": at_most(words),
    "Number Words (range)": between(words),
    "Number Sentences (at least)": at_least(sentences),
    "Number Sentences (at most)": at_most(sentences),
    "Number Sentences (range)": between(sentences),
    "Postscript": lambda text, p: letters_alone(str(p.get("postscript_marker") or "")) in letters_alone(text),
    "Number Placeholder": at_least(found(r"\[[^\]]+\]")),
    "Number Bullets": exactly(found(r"(?:^|\n)\s*\*\s+")),
    "Title": lambda text, p: re.search(r"<<[^>]+>>", text) is not None,
    "Minimum Number Highlighted Section": at_least(found(r"\*([^*]+)\*")),
    "Multiple Sections": sections,
    "Repeat Prompt": lambda text, p: text.strip().lower().startswith(str(p.get("prompt") or "").strip().lower()),
    "Two Responses": two_responses,
    "All Uppercase": lambda text, p: text.isupper(),
    "All Lowercase": lambda text, p: text.islower(),
    "All-capital Words (at least)": at_least(capital_words),
    "All-capital Words (at most)": at_most(capital_words),
    "All-capital Words (range)": between(capital_words),
    "Start Checker": lambda text, p: letters_alone(text, " ").startswith(
        letters_alone(str(p.get("start_phrase") or ""), " ")
    ),
    "End Checker": lambda text, p: letters_alone(text, " ").endswith(
        letters_alone(str(p.get("end_phrase") or ""), " ")
    ),
    "Quotation": lambda text, p: text.strip().startswith('"') and text.strip().endswith('"'),
    "No Commas": lambda text, p: "," not in text,
}
