"""What the page's script knows of the rows, as JSON. Lists in place of objects: ten thousand rows are some
megabytes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from coat.manifests import Utterance
from coat.trainer.evaluation.predictions import Prediction, RowScore
from coat.trainer.evaluation.reports.finished import Finished
from coat.trainer.evaluation.reports.sounds import Key, key_of

SHOWN_KEYS = ("speech_instruction", "spoken")  # of a row: what is said in it, where that is the question


def rows_in_order(evaluations: Sequence[Finished]) -> list[tuple[str, Utterance]]:
    """Every row that any of them asked, with its benchmark's label; those of the first come first."""
    found: dict[tuple[str, str], Utterance] = {}
    for one in evaluations:
        for label, rows in one.rows.items():
            for row in rows:
                found.setdefault((label, row.id), row)
    return [(label, row) for (label, _), row in found.items()]


def by_interest(evaluations: Sequence[Finished], rows: Sequence[tuple[str, Utterance]]) -> list[Utterance]:
    """Rows whose audio is wanted first: changed between runs, then wrong, then right."""
    scores = [scores_by_row(one) for one in evaluations]

    def rank(at: tuple[str, Utterance]) -> int:
        right = {s.strict for by_row in scores if (s := by_row.get((at[0], at[1].id)))}
        return 0 if len(right) > 1 else 1 if right == {False} else 2

    return [row for _, row in sorted(rows, key=rank)]


def scores_by_row(one: Finished) -> dict[tuple[str, str], RowScore]:
    return {(label, score.id): score for label, scores in one.scores.items() for score in scores}


def rows_data(
    evaluations: Sequence[Finished], rows: Sequence[tuple[str, Utterance]], audio: Mapping[Key, str]
) -> dict[str, Any]:
    """`rows`: [benchmark, id, question, choices, truth, groups, audio, answers]; indices into `benchmarks` and `audio`.

    An answer is null, or [answer, choice, status, official, strict, why official, why strict, prompt, cut, error,
    tokens, judgement].
    """
    scores = [scores_by_row(one) for one in evaluations]
    labels = list(dict.fromkeys(label for label, _ in rows))
    prompts: dict[str, int] = {}
    sounds = {key: i for i, key in enumerate(audio)}
    lines = []
    for label, row in rows:
        answers, groups = [], {}
        for one, by_row in zip(evaluations, scores, strict=True):
            score, prediction = by_row.get((label, row.id)), one.predictions.get((label, row.id))
            groups |= dict(score.groups) if score else {}
            if score is None and prediction is None:
                answers.append(None)
                continue
            prompt = prediction.prompt if prediction else ""
            answers.append([
                prediction.answer if prediction else None,
                prediction.choice if prediction else None,
                status(score, prediction is None),
                None if score is None else int(score.official),
                None if score is None else int(score.strict),
                score.official_why if score else "",
                score.strict_why if score else "",
                prompts.setdefault(prompt, len(prompts)),
                int(bool(prediction and prediction.cut)),
                (prediction.error if prediction else None) or "",
                tokens_of(prediction),
                one.judgements.get((label, row.id), ""),
            ])  # fmt: skip
        sound = key_of(row)
        lines.append([
            labels.index(label), row.id, question_of(row), list(row.choices), truth_of(row), groups,
            sounds.get(sound) if sound else None, answers,
        ])  # fmt: skip
    return {
        "evaluations": [one.name for one in evaluations],
        "benchmarks": labels,
        "prompts": list(prompts),
        "rows": lines,
    }


def tokens_of(prediction: Prediction | None) -> str:
    """Empty where they were not counted."""
    parts = ("prompt", "block", "answer")
    counts = [(part, getattr(prediction, f"{part}_tokens", None)) for part in parts]
    return ", ".join(f"{part} {count:,}" for part, count in counts if count is not None)


def status(score: RowScore | None, unasked: bool) -> str:
    if score is None:
        return "missing" if unasked else "unscored"
    return "unparsed" if score.unparsed else score.status


def question_of(row: Utterance) -> str:
    spoken = next((f"(spoken) {row.extra[key]}" for key in SHOWN_KEYS if row.extra.get(key)), "")
    return " ".join(part for part in (row.prompt or "", spoken) if part)


def truth_of(row: Utterance) -> str:
    return row.response if row.response is not None else row.text or ""


def script_json(data: Any) -> str:
    """JSON in which neither </script> nor <!-- can stand."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
