"""The study, run by run: `python -m benchmarks.real_model.study --digits FOLDER [--phase PHASE] [--arms A,C,D]`.

One run leaves one JSON in benchmarks/real_model/results/, and is not run again where that is there; a training that was
stopped goes on from its last checkpoint. Phases, in order: align (the student that all arms start from), final (each
arm and seed, on the test), listening (the floor of fidelity); and where it is asked for, variant (of C and E, on
validation).

On a GPU, all of it: --arms A,B,C,D,E --seeds 0,1,2 --phase final --phase listening --phase variant --at-once 4
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.real_model.aligned import build, keep
from benchmarks.real_model.arms import (
    ALIGNMENT,
    ARMS,
    LEARNING_RATE,
    LISTENING,
    ON_CPUS,
    ROWS,
    SEEDS,
    VARIANTS,
    Attention,
    Dtype,
    Run,
    What,
    config_of,
    native_dtype,
)
from benchmarks.real_model.clips import TASKS
from benchmarks.real_model.data import CACHE, coat, make_clips, make_pairs, make_shards, parsed, read_rows, rows_file
from benchmarks.scale_model.results import dumped
from coat.trainer.run_folder import read_metrics

RESULTS = Path(__file__).parent / "results"
ALIGNED, ALIGNED_LOG = RESULTS / "aligned.safetensors", RESULTS / "aligned.json"
PHASES = ("align", "final", "listening", "variant")
LONGEST = 8  # tokens of an answer
KEPT = ("step", "ce", "grad_norm")  # of metrics.jsonl, and each expert's loss


def note_rows(cache: Path) -> None:
    """RESULTS/rows.json: task, kind and source of each row that is asked, in order; and the majority answers' hits."""
    splits = {split: read_rows(rows_file(cache, split)) for split in ("validation", "test", "kept")}
    found: dict[str, Any] = {
        split: [{key: row[key] for key in ("task", "kind", "source")} for row in rows] for split, rows in splits.items()
    }
    truths = [row["truth"] for row in read_rows(cache / "corpus/train.jsonl")]
    found["majority"] = {}
    for task in TASKS:
        most = Counter(truth[task] for truth in truths if task in truth).most_common(1)[0][0]
        asked = [row["response"] for row in splits["test"] if row["task"] == task]
        found["majority"][task] = round(asked.count(most) / len(asked), 4)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "rows.json").write_text(json.dumps(found) + "\n")


def train(run: Run, cache: Path) -> Path:
    out = cache / "runs" / run.name
    out.parent.mkdir(parents=True, exist_ok=True)
    config = cache / "runs" / f"{run.name}.toml"
    config.write_text(config_of(run, cache, out).to_toml())
    coat("train", "--config", config)
    return out


def ask(cache: Path, rows: str, out: Path, *whom: object) -> dict[str, str]:
    """By task a 1 or 0 a row, in the order of the rows."""
    coat(
        "evaluate", "--data", rows_file(cache, rows), *whom, "--out", out,
        "--max-new-tokens", LONGEST, "--guard", 0, "--cost", 0,
    )  # fmt: skip
    right = {score["id"]: score["strict"] for score in read_rows(out / "scores.jsonl")}
    hits: dict[str, str] = {}
    for row in read_rows(rows_file(cache, rows)):
        hits[row["task"]] = hits.get(row["task"], "") + str(int(bool(right[row["id"]])))
    return hits


def align(cache: Path) -> None:
    """Train, keep what was trained among the results, and ask the student that all arms start from.

    A kept training is not done again: asking it goes on from there, on any machine.
    """
    if not ALIGNED.exists():
        make_shards(cache, ["align"])
        run = train(ALIGNMENT, cache)
        ALIGNED_LOG.parent.mkdir(exist_ok=True)
        ALIGNED_LOG.write_text(json.dumps(training_of(run)) + "\n")
        keep(run, ALIGNED)
    student, asked = aligned_student(cache), cache / "asked"
    hits = {rows: ask(cache, rows, asked / f"aligned-{rows}", "--student", student) for rows in ("kept", "test")}
    write(ALIGNMENT, hits, json.loads(ALIGNED_LOG.read_text()))


def aligned_student(cache: Path) -> Path:
    """Built of what is kept among the results."""
    folder = cache / "aligned"
    if not (folder / "config.json").exists():
        build(cache / "student", ALIGNED, folder)
    return folder


def perform(run: Run, cache: Path, results: Path = RESULTS) -> None:
    """Unless its result is there."""
    if read(run, results) is not None:
        return
    began = time.monotonic()
    folder = train(run, cache)
    hits = {rows: ask(cache, rows, cache / "asked" / f"{run.name}-{rows}", "--run", folder) for rows in ROWS[run.what]}
    write(run, hits, training_of(folder), results)
    print(f"{run.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def training_of(run: Path) -> dict[str, Any]:
    """Of a run's log: losses, and seconds."""
    metrics = read_metrics(run)
    steps = [0, *(row["step"] for row in metrics)]
    seconds = sum((row["step"] - before) / row["steps_per_s"] for before, row in zip(steps, metrics, strict=False))
    log = [{k: v for k, v in row.items() if k in KEPT or k.startswith("distill/")} for row in metrics]
    return {"train_seconds": round(seconds, 1), "log": log}


def write(run: Run, hits: dict[str, Any], training: dict[str, Any], results: Path = RESULTS) -> None:
    """Whole or not at all."""
    result = {"run": asdict(run) | {"name": run.name, "steps": run.steps}, "hits": hits, **training}
    results.mkdir(exist_ok=True)
    part = results / f"{run.name}.part"
    part.write_text(dumped(result))
    part.replace(results / f"{run.name}.json")


def read(run: Run, results: Path = RESULTS) -> dict[str, Any] | None:
    file = results / f"{run.name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def dtype_of(run: Mapping[str, Any]) -> str:
    """Of what results say of a run; those of before there was a choice say nothing, and are of bfloat16."""
    return run.get("dtype", "bfloat16")


def mean_accuracy(hits: dict[str, str]) -> float:
    """Over tasks, each weighing the same."""
    return sum(of_task.count("1") / len(of_task) for of_task in hits.values()) / len(hits)


def runs_of(
    phase: str, arms: Sequence[str], seeds: Sequence[int], attention: Attention = "sdpa", dtype: Dtype = "bfloat16"
) -> list[Run]:
    what: What = "final"
    if phase == "listening":
        arms, seeds = [LISTENING], seeds[:1]
    elif phase == "variant":
        arms = [name for arm in arms for name in VARIANTS if name.startswith(f"{arm}-") and name != LISTENING]
        what = "variant"
    return [Run(arm, LEARNING_RATE, seed, what, attention, dtype) for seed in seeds for arm in arms]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", choices=PHASES, action="append", help="repeat; default: all but variant")
    parser.add_argument("--arms", default=",".join(ON_CPUS), help=f"of {','.join(ARMS)}")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--at-once", type=int, default=1, help="trainings that share the device")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa", help="kernel of all trainings")
    parser.add_argument(
        "--dtype",
        choices=("auto", "bfloat16", "float32"),
        default="auto",
        help="auto: float32 on a CPU without bfloat16",
    )
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: a GPU where there is one")
    arguments = parsed(parser)
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    make_clips(CACHE, arguments.digits)
    make_pairs(CACHE, arguments.digits)
    note_rows(CACHE)
    for phase in arguments.phase or PHASES[:-1]:
        if phase == "align":
            if read(ALIGNMENT) is None:
                align(CACHE)
            continue
        make_shards(CACHE, ["train"])
        aligned_student(CACHE)
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        dtype = native_dtype() if arguments.dtype == "auto" else arguments.dtype
        runs = runs_of(phase, arguments.arms.split(","), seeds, arguments.attention, dtype)
        with ThreadPoolExecutor(arguments.at_once) as pool:
            list(pool.map(lambda run: perform(run, CACHE), runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
