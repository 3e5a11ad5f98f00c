"""Whole runs on Ray, and how tests start one as a user does. Runs that are killed: tests/chaos/test_killed_runs.py."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coat.manifests import RunError
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run, tree

ROOT = Path(__file__).parents[3]


def command(manifest: Path, store: Path, expert: str, *more: str) -> list[str]:
    expert = f"tests.pipeline.experts:{expert}"
    where = ["--manifest", str(manifest), "--store", str(store)]
    return [sys.executable, "-m", "coat", "extract", "--expert", expert, *where, *more]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """In a process group of its own, so that a kill takes its workers along as a node's death would."""
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_units(store: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while len(list(store.glob("*/*/units/*/done.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("ray_here")
def test_ray_workers_write_the_bytes_that_this_process_writes(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(120)
    run(manifest, tmp_path / "here")
    names = ["tests.pipeline.experts:Level"]
    (summary,) = extract(str(manifest), str(tmp_path / "ray"), names, resources=Resources(workers=2))
    assert summary.ok == 120
    assert summary.units_done > 2
    assert tree(tmp_path / "ray") == tree(tmp_path / "here")


@pytest.mark.usefixtures("ray_here")
def test_an_expert_that_cannot_start_on_workers_ends_the_run(make_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no GPU driver here"):
        extract(
            str(make_corpus(4)),
            str(tmp_path / "store"),
            ["tests.pipeline.experts:Unloadable"],
            resources=Resources(workers=1),
        )
