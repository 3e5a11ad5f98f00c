"""AIR-Bench, foundation part (arXiv 2402.07729): 19 tasks of speech, sound and music with two to four choices.

Source: github.com/OFA-Sys/AIR-Bench; data on the hub. One record of Foundation_meta.json, an array:

    {"uniq_id": 17, "path": "....wav", "question": "...", "choice_a": "...", "choice_b": "...", "choice_c": "..." or
    absent,
     "choice_d": "..." or absent, "answer_gt": "the text of a choice, or its letter", "task_name": "Speech_Grounding",
     "dataset_name": "librispeech"}

Audio lies in TASK_DATASET/; of Audio_Grounding as .flac, whatever `path` says.
"""

from collections.abc import Mapping
from typing import Any

from coat.trainer.evaluation.benchmark import Benchmark, QuestionRow, Source, Verdict
from coat.trainer.evaluation.rules.letters import LETTERS, by_letter, lettered_choices
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT, Template

AUTHORS = Template(
    "authors",
    "Choose the most suitable answer from options A, B, C, and D to respond the question in next line, "
    "you may only choose A or B or C or D.\n{question}\n{choices}",
    "{letter}. {text}",
    "\n",
    at_least=4,  # theirs writes "C. None" and "D. None" where there are two
)


class AirBench(Benchmark):
    name = "air-bench"
    version = "foundation, 2024-02"
    licence = "not stated; see its source"
    source = Source("https://github.com/OFA-Sys/AIR-Bench", "d5c1bdf")
    hub_id = "qyang1021/AIR-Bench-Dataset"
    rows = 19000
    note = "their published figures are of answers that GPT-3.5 made letters of first, at random where it saw none"
    templates = (AUTHORS, AUDIO_FLAMINGO, COAT)
    template = AUTHORS.name
    groups = ("task_name", "dataset_name")
    prediction_keys = ("response",)
    max_new_tokens = 64

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        keys = ("path", "question", "answer_gt", "task_name", "dataset_name")
        if missing := [key for key in keys if not record.get(key)]:
            raise ValueError(f"no {missing[0]}; expected a record of AIR-Bench's foundation part")
        if record.get("uniq_id") is None:
            raise ValueError("no uniq_id; expected a record of AIR-Bench's foundation part")
        choices, answer = lettered_choices(record), str(record["answer_gt"])
        if answer not in choices and len(answer) == 1 and answer in LETTERS[: len(choices)]:
            answer = choices[LETTERS.index(answer)]
        if answer not in choices:
            raise ValueError(f"answer_gt {answer!r} is none of its choices, nor a letter of one")
        task, data, path = record["task_name"], record["dataset_name"], str(record["path"])
        if task == "Audio_Grounding":
            path = path[:-3] + "flac"
        row = {"id": str(record["uniq_id"]), "audio_filepath": f"{task}_{data}/{path}", "prompt": record["question"]}
        return {**row, "response": answer, "choices": choices, "task_name": task, "dataset_name": data}

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        return by_letter(row, answer)

    def say(self, row: QuestionRow, index: int) -> str:
        return LETTERS[index]
