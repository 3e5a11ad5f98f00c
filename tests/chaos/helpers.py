"""Runs with an expert of tests/chaos/experts.py, and what their logs say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from coat.extractors.expert import Options
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.extraction.summary import Summary
from tests.pipeline.extraction.test_runs import ROOT

MODULE = "tests.chaos.experts"


def run(manifest: Path, store: Path, expert: str, resources: Resources, checkpoint: Path | None = None) -> Summary:
    options = Options(checkpoint=str(checkpoint) if checkpoint else None)
    (summary,) = extract(str(manifest), str(store), [f"{MODULE}:{expert}"], options, resources)
    return summary


def command(manifest: Path, store: Path, expert: str, *more: str) -> list[str]:
    where = ["--manifest", str(manifest), "--store", str(store)]
    return [sys.executable, "-m", "coat", "extract", "--expert", f"{MODULE}:{expert}", *where, *more]


def coat(arguments: list[str], seconds: float = 400.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)


def events(store: Path, event: str) -> list[dict[str, Any]]:
    """Of all runs on a store of one target set, in order of time."""
    found = [json.loads(line) for p in store.glob("*/*/runs/*.jsonl") for line in p.read_text().splitlines()]
    return sorted((e for e in found if e["event"] == event), key=lambda e: e["time"])


def units_done(store: Path) -> list[str]:
    """The unit of every report that a driver got, of all runs: one that was done twice stands there twice."""
    return [e["unit"] for e in events(store, "unit")]
