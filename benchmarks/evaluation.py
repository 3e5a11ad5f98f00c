"""Throughput of `coat evaluate` beside the loop that people write: processor, generate, one row at a time.

The same rows, student and limits, in turns. The loop is transformers alone; both decode the audio of the files.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import ROOT, Figure, corpus, format_range, judged, median, results
from coat.manifests import Manifest, decode, storage
from coat.manifests.corpus.writing import write_rows
from coat.trainer.evaluation.asking.who import make_asker
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.evaluation.predictions import read_predictions
from coat.trainer.evaluation.settings import EvaluationSettings
from coat.trainer.tiny_students.make import make_tiny_student

CLIPS, NEW_TOKENS, REPEATS, PROMPT = 32, 16, 3, "What is heard?"
TARGET = 1.0


def questions() -> Path:
    """A manifest with one prompt."""
    source = corpus(CLIPS, seed=3)
    asked = {"prompt": PROMPT, "response": "?"}
    path = ROOT / "evaluation" / "questions.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        {**row.to_row(), "audio_filepath": storage.absolute(row.audio), **asked} for row in Manifest.read(str(source))
    )
    write_rows(str(path), rows)
    return path


def plain_loop(student: Path, rows: Manifest) -> tuple[float, dict[str, str]]:
    """Seconds, and answers by id; the model is loaded before."""
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    processor = AutoProcessor.from_pretrained(student)
    model: Any = Qwen2AudioForConditionalGeneration.from_pretrained(student).eval()
    start, answers = time.perf_counter(), {}
    for row in rows:
        content = [{"type": "audio", "audio_url": "audio"}, {"type": "text", "text": PROMPT}]
        chat = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        audio = decode(row.audio).at(16000)
        inputs = processor(text=text, audio=[audio], sampling_rate=16000, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        answer = processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answers[row.id] = answer.strip()
    return time.perf_counter() - start, answers


def ours(student: Path, data: Path) -> tuple[float, dict[str, str]]:
    out = ROOT / "evaluation" / "out"
    shutil.rmtree(out, ignore_errors=True)
    settings = EvaluationSettings.from_dict(
        {
            "benchmarks": [{"name": "manifest", "label": "manifest", "data": str(data)}],
            "subject": {"kind": "student", "sources": [str(student)]},
            "max_new_tokens": NEW_TOKENS, "guard": 0, "cost": 0,
        },
        "benchmark",
    )  # fmt: skip
    asker = make_asker(settings)
    start = time.perf_counter()
    evaluate(settings, out, lambda _: asker)
    return time.perf_counter() - start, {key[1]: p.answer or "" for key, p in read_predictions(out).items()}


def main() -> None:
    torch.set_num_threads(1)  # of both: where others use the machine, too, threads would wait for each other
    with results("evaluation") as found:
        student = ROOT / "evaluation" / "student"
        if not student.exists():
            make_tiny_student(student, hidden=128, heads=4, text_layers=4, audio_layers=2, seconds=30)
        data = questions()
        rows = Manifest.read(str(data))
        seconds: dict[str, list[float]] = {"loop": [], "coat": []}
        same = 0
        for _ in range(REPEATS):
            loop_s, loop_answers = plain_loop(student, rows)
            coat_s, answers = ours(student, data)
            seconds["loop"].append(loop_s)
            seconds["coat"].append(coat_s)
            same = sum(answers[i] == answer for i, answer in loop_answers.items())
        ratios = [loop / coat for loop, coat in zip(seconds["loop"], seconds["coat"], strict=True)]
        rate = len(rows) / median(seconds["coat"])
        found.add(
            Figure(
                "`coat evaluate` / a loop of processor and generate, one row at a time: rows a second",
                format_range(ratios),
                f"> {TARGET:g}",
                judged(median(ratios) > TARGET, ratios),
                f"{rate:.1f} rows a second, with scores, intervals and files; {same} of {len(rows)} answers are the "
                "loop's; random weights, one thread",
            )
        )
        found.data = {"seconds": seconds, "rows": len(rows)}


if __name__ == "__main__":
    main()
