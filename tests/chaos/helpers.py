"""Runs with an expert of tests/chaos/experts.py, and what their logs say."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coat.extractors.expert import Options
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.extraction.summary import Summary
from tests.pipeline.extraction.test_runs import ROOT

MODULE = "tests.chaos.experts"


def run(
    manifest: Path, store: Path | str, expert: str, resources: Resources, checkpoint: Path | None = None
) -> Summary:
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


@contextmanager
def other_node(address: str, setup: str = "", **environment: str) -> Iterator[None]:
    """A node of one CPU whose processes have an environment and mounts of their own: `setup`, in shell, makes these."""
    import ray

    before = len(alive_nodes())
    start = f"exec {sys.executable} -m ray.scripts.scripts start --address={address} --num-cpus=1 --block"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", f"{setup}\n{start}"]
    env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **environment}
    process = subprocess.Popen(
        command if setup else command[4:], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while len(alive_nodes()) <= before:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield
    finally:
        ray.shutdown()  # before its node goes: the driver would say so
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def alive_nodes() -> list[str]:
    import ray

    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]
