"""Any manifest with prompts and answers: of your own making, in the format that training reads.

    {"id": "a1", "audio_filepath": "a1.flac", "prompt": "High or low?", "choices": ["high", "low"], "response": "low"}

Rows that have `text` and neither prompt nor response are transcribed. Scores are by `task` where rows have that key.
"""

from coat.trainer.evaluation.benchmark import Benchmark, Source
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT


class ManifestQuestions(Benchmark):
    name = "manifest"
    version = "yours"
    licence = "yours"
    source = Source("yours", "")
    templates = (COAT, AUDIO_FLAMINGO)
    groups = ("task",)
