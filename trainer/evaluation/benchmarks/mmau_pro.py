"""MMAU-Pro (arXiv 2508.13992): 5,305 questions about sound, speech, music, their mixes, several clips, space and voice.

Source: github.com/sonalkum/MMAUPro; data on the hub. One record of test.parquet:

    {"id": "...", "audio_path": ["data/....wav"], "question": "...", "answer": "the text of a choice, or a reference",
    "choices": [...] or
     null, "category": "sound" | ... | "open" | "instruction following", "task_identifier": "Number Words (range)",
     "kwargs": {"N1": 10, "N2": 20}, "length_type": "short", ...}

Three kinds of rows: closed (choices), open (a judge), and instructions, whose form is checked. Rows with several clips
are refused: a sample has one audio.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from coat.trainer.evaluation.benchmark import ACCURACY, QuestionRow, Source, Verdict
from coat.trainer.evaluation.rules.format_checks import CHECKS
from coat.trainer.evaluation.rules.judged import JUDGE, JudgedBenchmark
from coat.trainer.evaluation.templates import AUDIO_FLAMINGO, COAT

OPEN, INSTRUCTIONS = "open", "instruction following"
PERFORMANCE = "performance"  # their headline: the share of right answers, an open one counted by its rating
CRITERIA = ("correctness", "relevance", "completeness", "clarity")
OVERALL = "overall"
UNSAID = 3.0  # what a criterion that the judge leaves out counts in their script


class MMAUPro(JudgedBenchmark):
    name = "mmau-pro"
    version = "2025-08"
    licence = "not stated; see its source"
    source = Source("https://github.com/sonalkum/MMAUPro", "2269762")
    hub_id = "gamma-lab-umd/MMAU-Pro"
    rows = 5305
    note = "closed questions by the strict rule: theirs takes the choice that NV-Embed-v2 finds nearest, of nothing too"
    templates = (COAT, AUDIO_FLAMINGO)
    template = COAT.name
    metrics = (ACCURACY, PERFORMANCE, JUDGE)
    groups = ("category", "length_type")
    prediction_keys = ("model_output",)
    max_new_tokens = 512

    def to_row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        if missing := [key for key in ("id", "question", "category") if not record.get(key)]:
            raise ValueError(f"no {missing[0]}; expected a record of MMAU-Pro")
        category, choices = str(record["category"]), list(record.get("choices") or [])
        row = {"id": str(record["id"]), "audio_filepath": one_audio(record), "prompt": record["question"]}
        kept = {key: record[key] for key in self.groups if record.get(key)}
        if category == INSTRUCTIONS:
            task = record.get("task_identifier")
            if task not in CHECKS:
                raise ValueError(f"task_identifier {task!r}; expected one of {', '.join(CHECKS)}")
            parameters = {k: v for k, v in (record.get("kwargs") or {}).items() if v is not None}
            return {
                **row,
                "response": str(record.get("answer") or ""),
                **kept,
                "task_identifier": task,
                "kwargs": parameters,
            }
        if not record.get("answer"):
            raise ValueError("no answer; expected a record of MMAU-Pro")
        if category == OPEN:
            return {**row, "response": str(record["answer"]), **kept}
        if len(choices) < 2 or record["answer"] not in choices:
            raise ValueError("its answer is none of its choices")
        return {**row, "response": record["answer"], "choices": choices, **kept}

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        return self.strict(row, answer)

    def strict(self, row: QuestionRow, answer: str) -> Verdict:
        task = row.extra.get("task_identifier")
        if task is None:
            return by_right(super().strict(row, answer))
        parameters = {"prompt": row.prompt, **(row.extra.get("kwargs") or {})}
        right = CHECKS[task](answer, parameters)
        return by_right(Verdict(right, f"{task}: {'as asked' if right else 'not as asked'}"))

    def nothing(self, row: QuestionRow, why: str) -> Verdict:
        """Theirs takes an instruction such as "at most 20 words" for obeyed where nothing is said."""
        return rated(0.0, why) if row.extra.get("category") == OPEN else by_right(Verdict(False, why))

    def judge_request(self, row: QuestionRow, answer: str) -> str | None:
        if row.extra.get("category") != OPEN:
            return None
        return PROMPT.format(question=row.prompt, reference=row.response, answer=answer)

    def judged_official(self, row: QuestionRow, judgement: str) -> Verdict:
        """Flaws, kept: a criterion that is left out, or written otherwise ("**Clarity**: 4"), counts 3; an overall of 3
        is not believed, but made of the others."""
        stars = [UNSAID if (said := star_of(name, judgement)) is None else said for name in CRITERIA]
        overall = star_of(OVERALL, judgement)
        return rated(fmean(stars) if overall in (None, UNSAID) else min(overall, 5.0))

    def judged(self, row: QuestionRow, judgement: str) -> Verdict:
        """The mean of all criteria, each 1 to 5, as a share of 5."""
        stars = [star_of(name, judgement.replace("*", "")) for name in CRITERIA]
        given = [s for s in stars if s is not None and 1 <= s <= 5]
        if len(given) < len(CRITERIA):
            unread = ", ".join(n for n, s in zip(CRITERIA, stars, strict=True) if s not in given)
            return replace(rated(0.0, f"the judge gave no rating of 1 to 5 for {unread}"), unparsed=True)
        return rated(fmean(given))


def star_of(name: str, judgement: str) -> float | None:
    found = re.search(rf"{name}:\s*(\d+(?:\.\d+)?)", judgement, re.IGNORECASE)
    return float(found[1]) if found else None


def rated(stars: float, why: str = "") -> Verdict:
    share = (stars / 5, 1.0)
    return Verdict(stars >= 4, why or f"rated {stars:g} of 5", sums={JUDGE: share, PERFORMANCE: share})


def by_right(verdict: Verdict) -> Verdict:
    return replace(verdict, sums={PERFORMANCE: (float(verdict.right), 1.0)})


def one_audio(record: Mapping[str, Any]) -> Any:
    """ValueError where there is not one."""
    audio = record.get("audio_path") or record.get("audio")
    if isinstance(audio, list | tuple):
        if len(audio) != 1:
            raise ValueError(
                f"{len(audio)} audio files in one row; coat asks about one (--skip-bad leaves such rows out)"
            )
        return audio[0]
    if not audio:
        raise ValueError("no audio_path; expected a record of MMAU-Pro")
    return audio


PROMPT = """Rate an answer to a question about audio by a reference answer. You don't hear the audio.

[Question]
{question}

[Reference answer]
{reference}

[Answer to rate]
{answer}

Rate four things from 1 (worst) to 5 (best): correctness, by the reference; relevance, to what was asked; completeness,
of what the reference has; clarity. Then their mean. Answer in five lines of this form, without further marks:
CORRECTNESS: N - why
RELEVANCE: N - why
COMPLETENESS: N - why
CLARITY: N - why
OVERALL: N - why"""
