"""Alpaca-Audio (AudioBench, arXiv 2406.16020): 100 spoken instructions, answered in text and compared with a reference
by a judge.

Source: hub id AudioLLMs/alpaca_audio_test; licence of Alpaca, CC BY-NC 4.0. One record, Parquet:

    {"context": audio, "instruction": "Please follow the instruction in the speech.", "speech_instruction": "the words
    that are
     spoken", "answer": "a reference"}
"""

import re
from collections.abc import Mapping
from typing import Any

from coat.trainer.evaluation.benchmark import QuestionRow, Source, Verdict
from coat.trainer.evaluation.rules.judged import JUDGE, JudgedBenchmark, rating

NUMBER = re.compile(r"\d+(?:\.\d*)?")


class AlpacaAudio(JudgedBenchmark):
    name = "alpaca-audio"
    version = "AudioBench, 2024"
    licence = "of Alpaca: CC-BY-NC-4.0"
    source = Source("https://huggingface.co/datasets/AudioLLMs/alpaca_audio_test", "2024-07")
    hub_id = "AudioLLMs/alpaca_audio_test"
    rows = 100
    note = "AudioBench draws one of ten prompts in every run, and its judge samples; one prompt, temperature 0 here"
    prediction_keys = ("model_prediction", "response")

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        audio = record.get("context") or record.get("audio")
        if not audio or not record.get("speech_instruction") or not record.get("answer"):
            raise ValueError("no context, speech_instruction and answer; expected a record of alpaca_audio_test")
        prompt = record.get("instruction") or "Please follow the instruction in the speech."
        given = {"id": str(record["id"])} if record.get("id") else {}
        row = {**given, "audio_filepath": audio, "prompt": prompt, "response": record["answer"]}
        return {**row, "speech_instruction": record["speech_instruction"]}

    def judge_request(self, row: QuestionRow, answer: str) -> str | None:
        return PROMPT.format(
            instruction=row.extra.get("speech_instruction", ""), reference=row.response or "", answer=answer
        )

    def judged_official(self, row: QuestionRow, judgement: str) -> Verdict:
        """AudioBench prints the mean times 20. Flaw, kept: the last word alone is read, so that "4/5" is 0."""
        word = judgement.split()[-1] if judgement.split() else ""
        stars = float(word) if NUMBER.fullmatch(word) and float(word) <= 5 else 0.0
        return Verdict(stars >= 4, f"{word!r} is read as {stars:g} of 5", sums={JUDGE: (stars / 5, 1.0)})

    def judged(self, row: QuestionRow, judgement: str) -> Verdict:
        """0 to 5, as a share of 5."""
        stars = rating(judgement, 0, 5)
        if stars is None:
            return Verdict(False, "the judge gave no rating of 0 to 5", unparsed=True, sums={JUDGE: (0.0, 1.0)})
        return Verdict(stars >= 4, f"rated {stars:g} of 5", sums={JUDGE: (stars / 5, 1.0)})


PROMPT = """Rate an answer to a spoken instruction by a reference answer.

[Instruction]
{instruction}

[Reference answer]
{reference}

[Answer to rate]
{answer}

0: wrong, or about something else. 1: hardly related. 2: knows the topic, but differs from the reference in the main.
3: agrees with the reference on the whole, and lacks detail or precision. 4: right and relevant, with small gaps.
5: as right and as complete as the reference.

Say in one or two sentences why, then end with a line of this form, and nothing behind it:
Rating: N"""
