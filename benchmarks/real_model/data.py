"""What a study needs before its first run, made once, in its cache:

packages/                   Debian's packages of sounds, unpacked
student/, whisper/          the student as it is assembled; the phonetic expert
corpus/<split>.jsonl        clips with their truth, and audio/
corpus/<split>-rows.jsonl   rows as training (align, train) and `coat evaluate` (validation, test, kept) read them
corpus/pairs-rows.jsonl     minimal pairs of the test's sources
targets/, shards/           what the experts hear in the training's clips; shards: SHARDS
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_model.arms import CLIPS, EXPERTS, PAIRS, TARGET_HZ
from benchmarks.real_model.clips import (
    aligned_rows,
    alignment_row,
    question_rows,
    training_row,
    write_clips,
    write_pairs,
)
from benchmarks.real_model.sources import Sources
from benchmarks.real_model.student import make_student
from coat.manifests.corpus.writing import write_rows

CACHE = Path(os.environ.get("COAT_REAL_MODEL_CACHE", "runs/real_model"))

SEED = 0
SHARDS = {  # manifest that experts hear, that of the rows, and whether heads read them: shards hold one expert at least
    "align": ("align", "align-rows", False),
    "train": ("train", "train-rows", True),
    "test": ("test", "heard-rows", True),
    "asked": ("test-rows", "test-rows", False),  # the test's questions, a sample each
    "pairs": ("pairs-rows", "pairs-rows", False),  # minimal pairs of the test's sources
}


def coat(*arguments: object, is_read: bool = False) -> str:
    """One of coat's commands, as a user types it. SystemExit where it fails. What it prints is seen, or given back."""
    command = [sys.executable, "-m", "coat", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE if is_read else None, text=True)
    if done.returncode:
        raise SystemExit(f"coat {' '.join(map(str, arguments))}: exit code {done.returncode}")
    return done.stdout or ""


def make_clips(cache: Path, digits: Path, clips: Mapping[str, Mapping[str, int]] = CLIPS) -> None:
    """The student, all clips and the rows of them."""
    if not (cache / "whisper/config.json").exists() or not (cache / "student/config.json").exists():
        make_student(cache / "student", cache / "whisper")
    corpus = cache / "corpus"
    for split, counts in clips.items():
        if not (corpus / f"{split}.jsonl").exists():
            write_clips(Sources(cache, digits), corpus, split, counts, SEED)
    make_rows(cache, clips)


def make_pairs(cache: Path, digits: Path) -> None:
    """Rows of minimal pairs, and their clips."""
    file = rows_file(cache, "pairs")
    if not file.exists():
        write_pairs(Sources(cache, digits), cache / "corpus", file, PAIRS, SEED)


def make_rows(cache: Path, splits: Collection[str]) -> None:
    for name, rows in all_rows(cache / "corpus", splits):
        write_rows(str(rows_file(cache, name)), rows)


def make_shards(cache: Path, names: Iterable[str]) -> None:
    """What experts hear, and shards of it, where there are none."""
    for name in names:
        if (cache / "shards" / name / "index.json").exists():
            continue
        heard, rows, distilled = SHARDS[name]
        experts = EXPERTS if distilled else EXPERTS[:1]
        corpus, store = cache / "corpus", ["--store", cache / "targets"]
        for expert in experts:
            options = ["--checkpoint", cache / "whisper"] if expert == "whisper" else []
            coat(
                "extract", "--expert", expert, *options, *store, "--workers", 0, "--manifest", corpus / f"{heard}.jsonl"
            )
        coat(
            "build-shards", "--manifest", corpus / f"{rows}.jsonl", *store, "--experts", ",".join(experts),
            "--rate", f"{TARGET_HZ:g}", "--out", cache / "shards" / name,
        )  # fmt: skip


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, `digits` among them: a folder of the user's, since no package brings it."""
    parser.add_argument("--digits", type=Path, default=os.environ.get("COAT_FSDD_DIR"), help="folder of FSDD's tars")
    arguments = parser.parse_args()
    if arguments.digits is None:
        parser.error(
            "--digits (or COAT_FSDD_DIR) is missing: the folder with the tars of the Free Spoken Digit Dataset"
        )
    arguments.digits = Path(arguments.digits)
    return arguments


def rows_file(cache: Path, name: str) -> Path:
    return cache / "corpus" / f"{name}-rows.jsonl"


def all_rows(corpus: Path, splits: Collection[str]) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """`kept`: whether the alignment's questions are still answered. `heard`: the test's clips, as training has them."""
    rng = np.random.default_rng(SEED)
    for name, split, row_of in (
        ("align", "align", alignment_row),
        ("train", "train", training_row),
        ("heard", "test", training_row),
    ):
        if split in splits:
            yield name, (row_of(row, rng) for row in read_rows(corpus / f"{split}.jsonl"))
    for split in ("validation", "test"):
        if split in splits:
            yield split, question_rows(read_rows(corpus / f"{split}.jsonl"))
    yield "kept", aligned_rows(read_rows(corpus / "test.jsonl"))


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
