"""Building shards on a machine that fails: a worker that is killed, a temporary folder that is full."""

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from coat.manifests import RunError
from coat.pipeline.gathering.places import on_disk
from coat.pipeline.gathering.spool import Spool
from coat.pipeline.shards.build import build_shards
from tests.disks import mounted
from tests.pipeline.extraction.test_runs import ROOT, start
from tests.pipeline.shards.test_builds import LEVELS, SHARD, command, corpus, tree_of

__all__ = ["corpus"]


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_build_with_one_line_and_the_rerun_finishes_it(
    corpus: tuple[str, str], tmp_path: Path
) -> None:
    build_shards(*corpus, LEVELS, str(tmp_path / "whole"), SHARD)
    out = tmp_path / "out"
    process = start(command(corpus, out, "--workers", "2", "--block-size", "100KB"))
    deadline = time.monotonic() + 300
    while not list(out.glob("building/*/shard-*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    workers = [p for p in psutil.Process(process.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    os.kill(workers[0].pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    if process.returncode == 0:
        pytest.skip("the build was faster than the kill")
    assert process.returncode == 1, errors
    assert "a worker process died" in errors
    assert "Traceback" not in errors
    done = subprocess.run(command(corpus, out), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert tree_of(out) == tree_of(tmp_path / "whole")


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mounted(tmp_path / "disk", "1m") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with Spool(memory_bytes=1000) as spool:
            assert spool.get(spool.put(b"x" * 5000), 5000) == b"x" * 5000
            with pytest.raises(RunError, match=f"{disk}: cannot hold what is gathered .No space left .* TMPDIR"):
                spool.put(b"x" * 2_000_000)
        with pytest.raises(RunError, match=f"{disk}: cannot hold the columns of a plan .No space left"):
            on_disk(np.zeros(300_000))
