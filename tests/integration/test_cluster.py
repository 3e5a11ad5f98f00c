"""On a true Ray head: a job that is submitted with its working directory, its metrics, and the SLURM script."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coat.pipeline import TargetStore, verify
from coat.pipeline.extraction.metrics import COUNTERS, GAUGES, HISTOGRAMS
from tests.integration.helpers import ROOT
from tests.integration.ray_head import RAY, Head, end_all, free_ports, needs_ray_default, ray_environment, ray_head
from tests.pipeline.conftest import Corpus, make_corpus

__all__ = ["make_corpus"]
pytestmark = pytest.mark.slow
CLIPS = 24
PATIENCE_S = 300.0  # of a loaded machine; some 20 s are enough


def working_copy(target: Path) -> Path:
    """The files that git knows, symlinks as they are: what a user has in `.`, without environments and runs."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split("\0"):
        if name and (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
    assert (target / "coat" / "pipeline").is_symlink()
    return target


def check_store(store: Path, expert: str, clips: int) -> None:
    targets = TargetStore(str(store)).target_set(expert)
    assert sum(r.status == "ok" for r in targets.rows.values()) == clips
    assert verify(str(store)).damages == ()


def samples(text: str, name: str, **labels: str) -> list[float]:
    """Values of the exported series of that name and those labels."""
    found = re.findall(rf"^{name}{{(.*)}} (\S+)$", text, flags=re.MULTILINE)
    return [float(v) for tags, v in found if all(f'{k}="{w}"' in tags for k, w in labels.items())]


def test_a_submitted_job_and_its_metrics(make_corpus: Corpus, tmp_path: Path) -> None:
    """`ray job submit --working-dir . -- python -m coat extract`: coat comes from the working directory alone."""
    needs_ray_default()
    manifest, store = make_corpus(CLIPS), tmp_path / "targets"
    with manifest.open("a") as f:
        f.write('{"id": "gone", "audio_filepath": "audio/gone.flac", "duration": 1.0}\n')
    tree = working_copy(tmp_path / "tree")
    command = [sys.executable, "-m", "coat", "extract", "--expert", "mel", "--manifest", str(manifest)]
    command += ["--store", str(store), "--ray-address", "auto", "--workers", "2", "--max-failed", "1"]
    with ray_head() as head:
        submit = [*RAY, "job", "submit", "--address", head.url, "--working-dir", "."]
        patience = time.monotonic() + PATIENCE_S
        while True:
            done = run_scraping([*submit, "--", *command], tree, head)
            if "No available agent" not in done.stdout or time.monotonic() > patience:
                break  # a head's agent is there some seconds after its address
            time.sleep(1.0)
        assert done.returncode == 0, done.stdout
        assert "succeeded" in done.stdout
        check_store(store, "mel", CLIPS)
        text = scrape_until(head, lambda text: sum(samples(text, "ray_coat_rows_total", expert="mel")) > CLIPS)
        assert sum(samples(text, "ray_coat_rows_total", expert="mel", outcome="ok")) == CLIPS
        assert sum(samples(text, "ray_coat_rows_total", expert="mel", outcome="failed")) == 1
        assert sum(samples(text, "ray_coat_failures_total", expert="mel", reason="missing")) == 1
        units = len(TargetStore(str(store)).target_set("mel").done)
        assert sum(samples(text, "ray_coat_units_total", expert="mel")) == units
        assert sum(samples(text, "ray_coat_unit_seconds_count", expert="mel")) == units
        assert sum(samples(text, "ray_coat_stage_seconds_total", expert="mel", stage="forward")) > 0
        seen = set(re.findall(r"^(ray_coat_\w+?)(?:_total|_bucket|_sum|_count)?{", done.scraped + text, re.MULTILINE))
        silent = {"ray_coat_halvings", "ray_coat_padding_seconds"}  # never counted here: no want of memory, no padding
        assert {f"ray_{n}" for n in [*COUNTERS, *GAUGES, *HISTOGRAMS]} - silent <= seen
        check_nodes(head, tree)


def check_nodes(head: Head, tree: Path) -> None:
    """What `coat doctor` says of the cluster: its node is this machine."""
    command = [sys.executable, "-m", "coat", "doctor", "--only", "ray", "--ray-address", head.address, "--json"]
    env = {k: v for k, v in head.env.items() if k != "PYTHONPATH"}
    patience = ["--patience", str(PATIENCE_S)]
    done = subprocess.run([*command, *patience], cwd=tree, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {f["what"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["cluster"]["found"].startswith(f"{head.address}: 1 nodes, 2 CPUs")
    assert found["nodes"]["found"].startswith("1 of 1 are like this machine")
    env["RAY_AUTH_TOKEN"] = "0" * 64
    refused = subprocess.run([*command, *patience], cwd=tree, env=env, capture_output=True, text=True)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["findings"][0]["state"] == "broken"


def scrape_until(head: Head, complete: Callable[[str], bool]) -> str:
    """What a worker counted last comes some time after it has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while not complete(text := head.scrape()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return text


class Done:
    def __init__(self) -> None:
        self.returncode, self.stdout, self.scraped = -1, "", ""


def run_scraping(command: list[str], cwd: Path, head: Head) -> Done:
    """Run, and read the metrics meanwhile: gauges of a driver go with it."""
    done = Done()
    log = cwd.parent / "submit.log"  # a package whose files change while it is made is not found again
    # The copy must be what is imported: no PYTHONPATH, so that neither driver nor workers see another coat.
    env = {k: v for k, v in head.env.items() if k != "PYTHONPATH"}
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=out, stderr=subprocess.STDOUT)
        try:
            for _ in range(2 * int(PATIENCE_S)):
                try:
                    done.returncode = process.wait(0.5)
                    break
                except subprocess.TimeoutExpired:
                    done.scraped += head.scrape()
        finally:
            process.kill()
            process.wait()
    done.stdout = log.read_text()
    return done


def test_the_slurm_script_ends_in_time_and_goes_on(make_corpus: Corpus, tmp_path: Path) -> None:
    """The script as it is, on one node: `srun` runs its command here, `scontrol` knows this host.

    SLURM's SIGTERM ends it early and puts it back into the queue; the second run does the rest.
    """
    needs_ray_default()
    manifest, store, queue = make_corpus(240), tmp_path / "targets", tmp_path / "queue"
    tools = tmp_path / "bin"
    tools.mkdir()
    fake = {
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$REQUEUED"; fi',
        "ray": f'exec {sys.executable} -m ray.scripts.scripts "$@"',
        "coat": f'exec {sys.executable} -m coat "$@"',
    }
    for name, body in fake.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    job = str(free_ports(1)[0] % 10000)
    env = {k: v for k, v in ray_environment().items() if not k.startswith("RAY_AUTH")}
    env |= {"PATH": f"{tools}{os.pathsep}{env['PATH']}", "PYTHONPATH": str(ROOT), "REQUEUED": str(queue)}
    env |= {"MANIFEST": str(manifest), "STORE": str(store), "WORKERS": "1"}
    env |= {"SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "2"}
    command = ["bash", str(ROOT / "deploy" / "slurm" / "extract.sbatch"), "--expert", "tests.pipeline.experts:Slow"]

    def run(stop_early: bool) -> int:
        log = tmp_path / "sbatch.log"
        with log.open("a") as out:
            process = subprocess.Popen(command, env=env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while stop_early and process.poll() is None and time.monotonic() < deadline:
                if len(list(store.glob("slow/*/units/u-*"))) >= 2:
                    process.terminate()
                    break
                time.sleep(0.05)
            return process.wait(PATIENCE_S)
        finally:
            end_all(f"/tmp/ray-{job}", process)

    assert run(stop_early=True) == 130, (tmp_path / "sbatch.log").read_text()
    assert "what was committed is kept" in (tmp_path / "sbatch.log").read_text()
    assert queue.read_text().split() == ["requeue", job]
    done_before = set(store.glob("slow/*/units/u-*"))
    assert run(stop_early=False) == 0, (tmp_path / "sbatch.log").read_text()
    assert done_before < set(store.glob("slow/*/units/u-*"))
    assert queue.read_text().split() == ["requeue", job]
    check_store(store, "slow", 240)
