"""Any manifest with prompts and answers: of your own making, in the format that training reads.

    {"id": "a1", "audio_filepath": "a1.flac", "prompt": "High or low?", "choices": ["high", "low"], "response": "low"}

Rows that have `text` and neither prompt nor response are transcribed, and have error rates beside accuracy (of them the
share without an error). Scores are by `task` where rows have that key.
"""

from coat.trainer.evaluation.benchmark import ACCURACY, Benchmark, QuestionRow, Source, Verdict
from coat.trainer.evaluation.benchmarks.asr import SpeechRecognition
from coat.trainer.evaluation.rules.transcription import ERROR_RATES
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT

SPEECH = SpeechRecognition()


class ManifestQuestions(Benchmark):
    name = "manifest"
    version = "yours"
    licence = "yours"
    source = Source("yours", "")
    templates = (COAT, AUDIO_FLAMINGO)
    groups = ("task",)
    metrics = (ACCURACY, *ERROR_RATES)

    def strict(self, row: QuestionRow, answer: str) -> Verdict:
        return SPEECH.strict(row, answer) if is_transcribed(row) else super().strict(row, answer)

    def nothing(self, row: QuestionRow, why: str) -> Verdict:
        return SPEECH.nothing(row, why) if is_transcribed(row) else super().nothing(row, why)


def is_transcribed(row: QuestionRow) -> bool:
    return row.prompt is None and row.response is None
