"""MMAR (arXiv 2505.13032): 1,000 questions about speech, sound, music and mixes of them, that want several steps of
thought.

Source: github.com/ddlBoJack/MMAR, CC BY-NC 4.0; audio on the hub. One record, a line of JSONL (or of an array):

    {"id": "...", "audio_path": "./audio/....wav", "question": "...", "choices": ["...", ...], "answer": "the text of a
    choice",
     "modality": "mix-sound-speech", "category": "Semantic Layer", "sub-category": "...", "language": "en", "source":
     "...", "url": "...", "timestamp": "00:10,00:25", "thinking": "...", "cue": [...], "rubric": {...}}

`thinking`, `cue` and `rubric` say how the answer is found: they do not get into a manifest.
"""

from collections.abc import Mapping
from typing import Any

from coat.trainer.evaluation.benchmark import Benchmark, Published, QuestionRow, Source, Verdict
from coat.trainer.evaluation.benchmarks.mmau import AUTHORS
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT
from coat.trainer.evaluation.token_sets import matches


class MMAR(Benchmark):
    name = "mmar"
    version = "2025-05"
    licence = "CC-BY-NC-4.0"
    source = Source("https://github.com/ddlBoJack/MMAR", "112f10f")
    hub_id = "BoJack/MMAR"
    rows = 1000
    note = "its second scorer, rubrics of the thoughts by a GPT judge, is not here"
    templates = (AUTHORS, AUDIO_FLAMINGO, COAT)
    template = AUTHORS.name
    groups = ("modality", "category", "sub-category", "language")
    prediction_keys = ("answer_prediction", "model_prediction")
    max_new_tokens = 128
    published = (Published("Audio Flamingo 3", 0.585, where="its report", read=False),)

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if missing := [key for key in ("id", "audio_path", "question", "choices", "answer") if not record.get(key)]:
            raise ValueError(f"no {missing[0]}; expected a record of MMAR")
        kept = {key: record[key] for key in ("source", *self.groups) if record.get(key) is not None}
        row = {"id": record["id"], "audio_filepath": record["audio_path"], "prompt": record["question"]}
        return {**row, "response": record["answer"], "choices": record["choices"], **kept}

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        """MMAU's rule; one without a prediction leaves the count there, and is wrong here."""
        right = matches(row.response or "", answer, row.choices)
        return Verdict(
            right, "its words, and none of other choices" if right else "words lack, or are of other choices"
        )
