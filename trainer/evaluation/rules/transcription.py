"""Transcription: word and character error rates after Whisper's normaliser, pooled over the corpus."""

import re
from collections.abc import Callable
from typing import ClassVar

from coat.trainer.evaluation.benchmark import Benchmark, QuestionRow, Verdict
from coat.trainer.evaluation.templates import AS_IT_IS
from coat.trainer.evaluation.transcripts.error_rate import Edits, character_edits, word_edits
from coat.trainer.evaluation.transcripts.whisper_basic import normalise_basic
from coat.trainer.evaluation.transcripts.whisper_english import normalise_english

WER, CER = "wer", "cer"
ERROR_RATES = (WER, CER, "substitutions", "deletions", "insertions")  # the last three by word: they add up to WER
WITHOUT_SPACES = frozenset(["zh", "yue", "ja", "th", "lo", "my", "km"])  # languages that write no space between words
TAG = re.compile(r"<\|.*?\|>")
QUESTION = "Transcribe the speech."


class Transcription(Benchmark):
    """`strict`: the answer as it is. `official`: what the authors take out of answers before they count."""

    templates = (AS_IT_IS,)
    template = AS_IT_IS.name
    metrics: ClassVar[tuple[str, ...]] = ERROR_RATES
    prediction_keys = ("response", "model_prediction", "pred_text")
    max_new_tokens = 512

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        return self.strict(row, answer)

    def strict(self, row: QuestionRow, answer: str) -> Verdict:
        return self.compare(row, answer)

    def nothing(self, row: QuestionRow, why: str) -> Verdict:
        """Every word is a deletion."""
        return self.compare(row, "", why)

    def compare(
        self, row: QuestionRow, answer: str, why: str = "", normalise: Callable[[str, str], str] | None = None
    ) -> Verdict:
        """`normalise` takes a text and its language; None: ours."""
        made, language = normalise or self.normalise, language_of(row)
        truth, said = (made(text, language) for text in (truth_of(row), answer))
        words, characters = word_edits(truth, said), character_edits(truth, said)
        counted = f"{words.errors} errors in {words.length} words: {words.substitutions} substituted, "
        counted += f"{words.deletions} deleted, {words.insertions} inserted"
        return Verdict(
            words.errors == 0, f"{why}; {counted}" if why else counted, said, sums=sums_of(words, characters)
        )

    def normalise(self, text: str, language: str) -> str:
        """Of words with one space between them; of languages without spaces, letters are words."""
        if language == "en":
            return " ".join(normalise_english(text).split())
        return " ".join(normalise_basic(text, split_letters=language in WITHOUT_SPACES).split())


def sums_of(words: Edits, characters: Edits) -> dict[str, tuple[float, float]]:
    by_word = {name: getattr(words, name) for name in ERROR_RATES[2:]}
    counts = {WER: words.errors, **by_word}
    rates = {name: (float(count), float(words.length)) for name, count in counts.items()}
    return {**rates, CER: (float(characters.errors), float(characters.length))}


def truth_of(row: QuestionRow) -> str:
    """What is said: `response`, or the row's `text`."""
    return row.response if row.response is not None else row.text or ""


def language_of(row: QuestionRow) -> str:
    """`en` where the row does not say."""
    said = row.extra.get("language") or row.extra.get("lang") or "en"
    return str(said).lower().replace("_", "-").split("-")[0].replace("english", "en")


def without_tags(text: str) -> str:
    """Without `<|en|>` and the like."""
    return " ".join(TAG.sub(" ", text).split())
