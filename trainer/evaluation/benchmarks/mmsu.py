"""MMSU (arXiv 2506.04779): 5,000 questions about speech, in 47 tasks of perception and reasoning.

Source: github.com/dingdongwang/MMSU_Bench; data on the hub. One record:

    {"id": "...", "task_name": "...", "audio_path": "audio/....wav", "question": "...", "choice_a": "...", "choice_b":
    "...",
     "choice_c": "...", "choice_d": "...", "answer_gt": "the text of a choice", "category": "Perception",
     "sub-category": "...", "sub-sub-category": "...", "linguistics_sub_discipline": "..."}
"""

from collections.abc import Mapping
from typing import Any

from coat.trainer.evaluation.benchmark import Benchmark, Published, QuestionRow, Source, Verdict
from coat.trainer.evaluation.rules.letters import LETTERS, by_letter, lettered_choices
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT, Template

AUTHORS = Template(
    "authors",
    "Choose the most suitable answer from options A, B, C, and D to respond the question in next line, "
    "**you should only choose A or B or C or D.** Do not provide any additional explanations or content.\n\n"
    "Question: {question}\n\n{choices}",
    "{letter}. {text}",
    "\n",
)


class MMSU(Benchmark):
    name = "mmsu"
    version = "2025-06"
    licence = "not stated; see its source"
    source = Source("https://github.com/dingdongwang/MMSU_Bench", "321b276")
    hub_id = "ddwang2000/MMSU"
    rows = 5000
    note = "an empty reply is wrong; the authors' script gives it the letter of the record before"
    templates = (AUTHORS, AUDIO_FLAMINGO, COAT)
    template = AUTHORS.name
    groups = ("category", "sub-category", "sub-sub-category", "task_name", "linguistics_sub_discipline")
    prediction_keys = ("response",)
    max_new_tokens = 64
    published = (
        Published("Qwen2-Audio-7B", 0.533, where="the authors' report", read=False),
        Published("Qwen2.5-Omni-7B", 0.626, where="a report by others", read=False),
        Published("Audio Flamingo 3", 0.614, where="a report by others", read=False),
    )

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if missing := [key for key in ("id", "audio_path", "question", "answer_gt") if not record.get(key)]:
            raise ValueError(f"no {missing[0]}; expected a record of MMSU")
        choices = lettered_choices(record)
        if record["answer_gt"] not in choices:
            raise ValueError(f"answer_gt {record['answer_gt']!r} is none of its choices")
        kept = {key: record[key] for key in self.groups if record.get(key)}
        row = {"id": str(record["id"]), "audio_filepath": record["audio_path"], "prompt": record["question"]}
        return {**row, "response": record["answer_gt"], "choices": choices, **kept}

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        """Of equal choices every one is right here, as its script compares texts."""
        verdict = by_letter(row, answer)
        return Verdict(
            verdict.choice is not None and verdict.choice == row.response, verdict.why, verdict.choice, verdict.unparsed
        )

    def say(self, row: QuestionRow, index: int) -> str:
        return LETTERS[index]
