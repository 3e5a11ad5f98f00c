"""Questions about tones, and who answers them without a model."""

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from coat.manifests import Clip
from coat.trainer.evaluation.asking.ask import Answered, Ask
from coat.trainer.evaluation.results import Subject
from coat.trainer.evaluation.settings import EvaluationSettings

RATE = 16000


def write_questions(folder: Path, rows: int = 6, seconds: float = 0.5, **changes: Any) -> Path:
    """A manifest: is a tone high or low? Of unlike lengths, so that batches are not in the order of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(rows):
        time_S = np.arange(int((seconds + 0.1 * (i * 7 % 5)) * RATE)) / RATE
        soundfile.write(folder / f"q{i}.wav", 0.3 * np.sin(2 * np.pi * (200 if i % 2 else 800) * time_S), RATE)
        row = {"id": f"q{i}", "audio_filepath": f"q{i}.wav", "prompt": "High or low?", "choices": ["high", "low"]}
        lines.append({**row, "response": "low" if i % 2 else "high", "task": "odd" if i % 2 else "even", **changes})
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "questions.jsonl"


def settings_of(data: Path, source: object, kind: str = "student", **options: Any) -> EvaluationSettings:
    made = {
        "benchmarks": [{"name": "manifest", "label": "manifest", "data": str(data)}],
        "subject": {"kind": kind, "sources": [str(source)]},
        **{"max_new_tokens": 4, "batch_size": 2, "guard": 2, "cost": 0, **options},
    }
    return EvaluationSettings.from_dict(made, "test")


class Listener:
    """Answers by what it hears: the frequency. `deaf`: the same whatever is played to it."""

    subject = Subject(kind="student", source="listener")

    def __init__(self, deaf: bool = False, fixed: str | None = None) -> None:
        self.deaf, self.fixed = deaf, fixed
        self.asked: list[list[tuple[str, str]]] = []  # batches, of ids and variants

    def positions(self, ask: Ask, seconds: float) -> int:
        return round(25 * seconds)

    def prepare(self, ask: Ask, clip: Clip | None) -> tuple[Ask, Clip | None]:
        return ask, clip

    def answer(self, prepared: Sequence[tuple[Ask, Clip | None]], max_new_tokens: int) -> list[Answered]:
        self.asked.append([(ask.row.id, ask.variant) for ask, _ in prepared])
        return [Answered(text=self.say(ask, clip), answer_tokens=1) for ask, clip in prepared]

    def say(self, ask: Ask, clip: Clip | None) -> str:
        if self.fixed is not None:
            return self.fixed
        if self.deaf or clip is None or not clip.samples_T.any():
            return ask.choices[0]
        crossings = np.count_nonzero(np.diff(np.signbit(clip.samples_T))) / clip.seconds
        return "It is high." if crossings > 800 else "It is low."


PLACES = ("before", "half", "between", "torn", "behind")  # of a kill in the writing of one batch


def evaluate_and_die(
    settings: dict[str, Any], out: Path, deadly: tuple[int, int, str] | None, device: str = "cpu"
) -> None:
    """`deadly` (rank, n, where): that rank is killed with signal 9 in the writing of its n-th batch.

    Where: before it; in half a line of its first file; between its files; in half a line of its last file; behind it.
    Or `file`: before its n-th file that is written at once (config.toml, results.json, ...).
    """
    from coat.manifests import storage
    from coat.trainer.evaluation import evaluation
    from coat.trainer.evaluation.asking import loop
    from coat.trainer.evaluation.asking.who import launched_ranks, make_asker

    rank, files, batches = int(os.environ.get("RANK", "0")), 0, 0
    deadly_rank, n, where = deadly or (-1, 0, "")
    append, write = loop.append_lines, storage.write_bytes

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def append_and_die(path: Path, lines: Sequence[str]) -> None:
        nonlocal batches
        is_first = path.name.startswith(loop.TIMINGS.removesuffix(".jsonl"))
        batches += is_first
        if (rank, batches) != (deadly_rank, n) or where == "file":
            append(path, lines)
            return
        if (where == "before" and is_first) or (where == "between" and not is_first):
            die()
        if where == ("half" if is_first else "torn"):
            with path.open("a") as f:
                f.write(lines[0][: len(lines[0]) // 2])
            die()
        append(path, lines)
        if where == "behind" and not is_first:
            die()

    def write_and_die(path: str, data: bytes) -> None:
        nonlocal files
        files += 1
        if (rank, files, "file") == (deadly_rank, n, where):
            die()
        write(path, data)

    loop.append_lines, storage.write_bytes = append_and_die, write_and_die
    ranks, _ = launched_ranks()
    evaluation.evaluate(EvaluationSettings.from_dict(settings, "test"), out, make_asker, ranks=ranks)
