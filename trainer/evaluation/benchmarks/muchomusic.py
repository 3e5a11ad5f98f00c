"""MuChoMusic (arXiv 2408.01337): 1,187 questions about 644 pieces of music, of Song Describer and MusicCaps.

Source: github.com/mulab-mir/muchomusic (code MIT, data CC BY-SA 4.0). One record of what its prepare_prompts.py writes,
an array:

    {"id": 415600, "prompt": "Question: ...\\n Options: (A) ... (B) ... (C) ... (D) ... \\n The correct answer is: ",
     "answers": ["...", "...", "...", "..."], "answer_orders": [3, 0, 2, 1], "dataset": "sdd", "genre": "Reggae",
     "reasoning": ["genre and style"], "knowledge": [], "audio_path": "data/sdd/audio/00/415600.2min.mp3"}

`answers` is in the order of the letters, and `answer_orders.index(0)` the right one. An id is a piece, not a question.
"""

from collections.abc import Mapping
from typing import Any

import xxhash

from coat.trainer.evaluation.benchmark import Benchmark, QuestionRow, Source, Verdict
from coat.trainer.evaluation.rules.letters import LETTERS
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT, Template

AUTHORS = Template(
    "authors", "Question: {question}\n Options: {choices} \n The correct answer is: ", "({letter}) {text}", " "
)
PREFIX = "The correct answer is:"


class MuChoMusic(Benchmark):
    name = "muchomusic"
    version = "2024-07"
    licence = "CC-BY-SA-4.0"
    source = Source("https://github.com/mulab-mir/muchomusic", "51d5160")
    hub_id = "mulab-mir/muchomusic"
    rows = 1187
    templates = (AUTHORS, AUDIO_FLAMINGO, COAT)
    template = AUTHORS.name
    groups = ("asks", "knowledge", "reasoning", "genre", "dataset")
    prediction_keys = ("model_output",)
    max_new_tokens = 64

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if missing := [k for k in ("id", "prompt", "answers", "answer_orders", "audio_path") if not record.get(k)]:
            raise ValueError(f"no {missing[0]}; expected a record as prepare_prompts.py writes it")
        choices, orders = [str(a) for a in record["answers"]], list(record["answer_orders"])
        if len(choices) != len(orders) or 0 not in orders:
            raise ValueError("answer_orders must have a number for each answer, and 0 for the right one")
        question = question_of(record["prompt"])
        knows, reasons = (categories(record.get(key)) for key in ("knowledge", "reasoning"))
        asks = " and ".join(name for name, has in (("knowledge", knows), ("reasoning", reasons)) if has)
        kept = {"asks": asks, "knowledge": knows, "reasoning": reasons} | {
            k: record.get(k) for k in ("genre", "dataset")
        }
        row = {
            "id": f"{record['id']}-{xxhash.xxh3_64_hexdigest(question.encode())[:8]}",
            "audio_filepath": record["audio_path"],
            "prompt": question,
            "response": choices[orders.index(0)],
            "choices": choices,
        }
        return row | {key: value for key, value in kept.items() if value}

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        """`extract_responses` of its scoring.py.

        Flaws, kept: one capital of A to D anywhere is the answer ("Classical" is C), and where there are none or
        several, the first choice whose text stands in the answer, though others do, too.
        """
        said = answer.rsplit(PREFIX, 1)[-1].strip()
        letters = sorted(set(LETTERS) & set(said))
        if len(letters) == 1:
            at, why = LETTERS.index(letters[0]), f"read as {letters[0]}"
        else:
            found = [i for i, choice in enumerate(row.choices) if choice.lower().strip() in said.lower()]
            at, why = (
                (found[0], "the first choice whose text it holds") if found else (-1, "no choice is read out of it")
            )
        choice = row.choices[at] if 0 <= at < len(row.choices) else None
        right = choice is not None and row.choices.index(row.response or "") == at
        return Verdict(right, why, choice, unparsed=choice is None)

    def say(self, row: QuestionRow, index: int) -> str:
        return LETTERS[index]


def question_of(prompt: str) -> str:
    """Behind the last `Question:`, since examples may come before it."""
    question, options, _ = prompt.rpartition("Question:")[2].partition("Options:")
    if not options or not question.strip():
        raise ValueError("prompt has no 'Question: ... Options: ...'")
    return question.strip()


def categories(values: Any) -> str:
    """As one group: questions may be of several categories."""
    return " + ".join(sorted(map(str, values or [])))
