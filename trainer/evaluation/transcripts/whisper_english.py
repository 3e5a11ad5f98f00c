"""Whisper's English normaliser: contractions, titles, numbers, currencies, spelling.

The rules are those of Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (appendix C), with
the quirks of the published code ("st" is always a saint), since error rates that are to be compared depend on them. The
code is ours; tests compare it with the published package.
"""

import re

from coat.trainer.evaluation.transcripts.english_numbers import write_numbers
from coat.trainer.evaluation.transcripts.spelling import american_spelling
from coat.trainer.evaluation.transcripts.symbols import without_symbols_but_money
from coat.trainer.evaluation.transcripts.whisper_basic import SPACES, without_brackets

HESITATIONS = re.compile(r"\b(hmm|mm|mhm|mmm|uh|um)\b")
SPACE_BEFORE_APOSTROPHE = re.compile(r"\s+'")
WHOLE_WORDS = {
    "won't": "will not", "can't": "can not", "let's": "let us", "ain't": "aint", "y'all": "you all",
    "wanna": "want to", "gotta": "got to", "gonna": "going to", "i'ma": "i am going to", "imma": "i am going to",
    "woulda": "would have", "coulda": "could have", "shoulda": "should have", "ma'am": "madam",
}  # fmt: skip
# Titles get a space behind them, which a full stop may have been.
TITLES = {
    "mr": "mister", "mrs": "missus", "st": "saint", "dr": "doctor", "prof": "professor", "capt": "captain",
    "gov": "governor", "ald": "alderman", "gen": "general", "sen": "senator", "rep": "representative",
    "pres": "president", "rev": "reverend", "hon": "honorable", "asst": "assistant", "assoc": "associate",
    "lt": "lieutenant", "col": "colonel", "jr": "junior", "sr": "senior", "esq": "esquire",
}  # fmt: skip
WORDS = WHOLE_WORDS | {short: f"{long} " for short, long in TITLES.items()}
WORD = re.compile(rf"\b({'|'.join(map(re.escape, WORDS))})\b")
# In this order: 's is "has" before some participles, else "is".
ENDINGS = {
    "'d been": " had been", "'s been": " has been", "'d gone": " had gone", "'s gone": " has gone",
    "'d done": " had done", "'s got": " has got",
    "n't": " not", "'re": " are", "'s": " is", "'d": " would", "'ll": " will", "'t": " not", "'ve": " have",
    "'m": " am",
}  # fmt: skip
ENDING_RULES = tuple((re.compile(rf"{re.escape(ending)}\b"), full) for ending, full in ENDINGS.items())
COMMA_IN_NUMBER = re.compile(r"(\d),(\d)")
FULL_STOP = re.compile(r"\.([^0-9]|$)")
SIGN_BEFORE_NO_DIGIT = re.compile(r"[.$¢€£]([^0-9])")
PERCENT_BEHIND_NO_DIGIT = re.compile(r"([^0-9])%")


def normalise_english(text: str) -> str:
    """A transcript as Whisper's English normaliser writes it. A space may be left at either end."""
    text = without_brackets(text.lower())
    text = HESITATIONS.sub("", text)
    if "'" in text:
        text = SPACE_BEFORE_APOSTROPHE.sub("'", text)
    text = WORD.sub(lambda match: WORDS[match[1]], text)
    if "'" in text:
        for rule, full in ENDING_RULES:
            text = rule.sub(full, text)
    text = COMMA_IN_NUMBER.sub(r"\1\2", text)
    text = FULL_STOP.sub(r" \1", text)
    text = without_symbols_but_money(text)
    text = american_spelling(write_numbers(text))
    text = SIGN_BEFORE_NO_DIGIT.sub(r" \1", text)
    text = PERCENT_BEHIND_NO_DIGIT.sub(r"\1 ", text)
    return SPACES.sub(" ", text)
