"""One run, one JSON: what is written, where, and which rate was chosen.

RESULTS/<name>.json   run, validation and test (by question, a 1 or 0 a clip), majority, causal, probes, log;
                      of a student that is taught: least_losses
"""

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.scale_model.arms import ARMS, NEW, Run
from benchmarks.scale_model.corpus import QUESTIONS
from benchmarks.scale_model.data import Asker, Clips, load_split
from benchmarks.scale_model.measure import accuracy, causal, least_losses, majority
from benchmarks.scale_model.probes import probe
from benchmarks.scale_model.training import asker_of, train
from coat.trainer.data.collator import Collator
from coat.trainer.model.coat_model import CoatModel

RESULTS = Path(__file__).parent / "results"
CAUSAL_CLIPS, PROBE_CLIPS = 400, 1000  # of the test, and of the training clips
Result = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a run finds its data and leaves its result."""

    cache: Path
    results: Path = RESULTS

    def file(self, run: Run) -> Path:
        return self.results / f"{run.name}.json"

    def read(self, run: Run) -> Result | None:
        return json.loads(self.file(run).read_text()) if self.file(run).exists() else None

    def write(self, run: Run, result: Result) -> None:
        """Whole or not at all."""
        self.results.mkdir(parents=True, exist_ok=True)
        part = self.file(run).with_suffix(f".{os.getpid()}.part")
        part.write_text(dumped(result))
        part.replace(self.file(run))

    def all(self) -> list[Result]:
        return [json.loads(file.read_text()) for file in sorted(self.results.glob("*.json"))]


def dumped(result: Result) -> str:
    """JSON with a line for each key and each row of the log."""
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items() if key != "log"]
    rows = ",\n  ".join(json.dumps(row) for row in result["log"])
    return "{\n" + ",\n".join([*parts, f'"log": [\n  {rows}\n ]']) + "\n}\n"


def perform(run: Run, cache: Path) -> Result:
    """Train and measure. Deterministic but for times; a run that chooses a rate never looks at the test clips."""
    began = time.monotonic()
    tested = run.what in ("final", "clock", "scaled", "five", "longer", "design")
    splits = {s: load_split(cache, s) for s in ("train", "validation", *(["test"] if tested else []))}
    probed: dict[str, Any] = {}

    def probe_all(when: str, model: CoatModel, collator: Collator) -> None:
        """Of a student that is taught; the test clips are for the runs after it."""
        train_clips, validation = (asker_of(run, collator, splits[s]) for s in ("train", "validation"))
        probed[when] = probe(model, train_clips, validation, validation, PROBE_CLIPS)

    taught = run.regime == "pretrain"
    trained = train(run, cache, splits["train"], partial(probe_all, "before") if taught else None)
    model, askers = trained.model, {s: asker_of(run, trained.collator, c) for s, c in splits.items()}
    result: Result = {"run": asdict(run) | {"name": run.name, "questions": list(run.questions)}}
    result["validation"] = accuracy(model, askers["validation"])
    result["majority"] = {"validation": floors(splits["validation"], run.questions)}
    if taught:
        probe_all("behind", model, trained.collator)
        result |= {"probes": probed, "least_losses": least_losses(model, NEW)}
    if tested:  # of `tuned` also what it was taught first
        everything = Asker(trained.collator, splits["test"], tuple(QUESTIONS))
        result["test"] = accuracy(model, everything)
        result["majority"]["test"] = floors(splits["test"], QUESTIONS)
    if run.what == "used":
        result["causal"] = causal(model, askers["validation"], CAUSAL_CLIPS)
    if (run.what == "final" and run.arm in ARMS) or run.what in ("five", "design"):
        result["causal"] = causal(model, askers["test"], CAUSAL_CLIPS)
        result["probes"] = probe(model, askers["train"], askers["validation"], askers["test"], PROBE_CLIPS)
    seconds = {"cpu": trained.facts["cpu_seconds"], "train": trained.facts["seconds"]}
    seconds |= {"all": round(time.monotonic() - began, 1)}
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return result | {"parameters": trained.facts["parameters"], "seconds": seconds} | {
        "versions": versions, "log": trained.facts["log"],
    }  # fmt: skip


def floors(clips: Clips, questions: Iterable[str]) -> dict[str, float]:
    return {q: round(majority(clips.truths, q), 4) for q in questions}


def mean_accuracy(hits: Mapping[str, str], questions: Iterable[str]) -> float:
    """Over question types, each weighing the same."""
    parts = [hits[q].count("1") / len(hits[q]) for q in questions]
    return sum(parts) / len(parts)
