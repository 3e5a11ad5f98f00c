"""MMAU (arXiv 2410.19168): 10,000 questions about sound, music and speech; 1,000 of them (test-mini) with answers.

Source: github.com/Sakshi113/MMAU, Apache-2.0; audio apart. One record of mmau-test-mini.json, an array:

    {"id": "...", "audio_id": "./test-mini-audios/....wav", "question": "...", "choices": ["...", ...],
     "answer": "the text of a choice", "dataset": "AudioSet", "task": "sound" | "music" | "speech",
     "split": "test-mini", "category": "Reasoning", "sub-category": "...", "difficulty": "medium"}

The 9,000 of `test` have no answers. v05.15.25 revised a quarter of the questions and some audio: scores of before and
after do not compare, so they are two benchmarks here.
"""

from collections.abc import Mapping
from typing import Any

from coat.trainer.evaluation.benchmark import Benchmark, Published, QuestionRow, Source, Verdict
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT, Template
from coat.trainer.evaluation.token_sets import matches

# As the authors answered in issue 3, the list as Python writes it.
AUTHORS = Template("authors", "{question} Select one option from the provided choices.\n[{choices}]", "'{text}'", ", ")


class MMAU(Benchmark):
    name = "mmau"
    version = "v05.15.25"
    licence = "Apache-2.0"
    source = Source("https://github.com/Sakshi113/MMAU", "110127f")
    rows = 10000
    templates = (AUTHORS, AUDIO_FLAMINGO, COAT)
    template = AUTHORS.name
    groups = ("task", "category", "sub-category", "difficulty")
    known_data = {"1adf0b6b55b65f0ffce03ee7e2cf7788": "v05.15.25 test-mini"}  # noqa: RUF012 - a ClassVar of the base
    prediction_keys = ("model_output", "model_prediction")  # its code reads the first, its README names the second
    max_new_tokens = 128
    published = (
        Published("Qwen2-Audio-7B", 0.596, where="test-mini", read=False),
        Published("Qwen2.5-Omni-7B", 0.715, where="test-mini", read=False),
        Published("Qwen2.5-Omni-7B", 0.710, where="test", read=False),
        Published("Audio Flamingo 3", 0.733, where="test-mini", read=False),
        Published("Audio Flamingo 3", 0.724, where="test", read=False),
    )

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: unlisted(record[key]) for key in ("dataset", "split", *self.groups) if key in record}
        if missing := [key for key in ("id", "audio_id", "question", "choices") if not record.get(key)]:
            raise ValueError(f"no {missing[0]}; expected a record of MMAU")
        row = {"id": record["id"], "audio_filepath": record["audio_id"], "prompt": record["question"]}
        return {**row, "response": record.get("answer"), "choices": record["choices"], **kept}

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        """`string_match` of its evaluation.py; one that is not there is wrong here, and leaves the count there."""
        right = matches(row.response or "", answer, row.choices)
        return Verdict(
            right, "its words, and none of other choices" if right else "words lack, or are of other choices"
        )


def unlisted(value: Any) -> Any:
    """13 records of test-mini have their category in a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class MMAUFirst(MMAU):
    name = "mmau-first"
    version = "before v05.15.25"
    known_data = {}  # noqa: RUF012 - a ClassVar of the base
    published = (
        Published("Qwen2-Audio-7B", 0.492, where="test, of the paper"),
        Published("Qwen2.5-Omni-7B", 0.656, where="its report"),
    )
