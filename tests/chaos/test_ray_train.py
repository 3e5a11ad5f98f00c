"""Training on Ray: what ranks cannot do is one line, a first signal stops the run, and a lost worker is made up for."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from coat.trainer import TrainConfig
from coat.trainer.tiny_students.make import make_tiny_student
from tests.integration.ray_head import Head, ray_head
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.training.processes import run_ranks, train_and_die
from tests.trainer.training.test_loop import ROOT, assert_equal_runs

UP_S = 300.0  # of workers on a loaded machine; some 15 s are enough


def start(head: Head, config: TrainConfig, folder: Path, workers: int = 2) -> subprocess.Popen[str]:
    file = folder / "config.toml"
    file.write_text(config.to_toml())
    command = [sys.executable, "-m", "coat", "train", "--config", str(file), "--ray-address", head.address]
    return subprocess.Popen(
        [*command, "--workers", str(workers)], env={**head.env, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_until(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + UP_S
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end_of(process: subprocess.Popen[str], status: int) -> list[str]:
    """Lines of stderr without progress."""
    _, error = process.communicate(timeout=UP_S)  # stdout is Ray's, which tells there of workers that died
    assert process.returncode == status, error
    return [line for line in error.replace("\r", "\n").splitlines() if line and "train: " not in line]


def ranks_here() -> list[psutil.Process]:
    """Workers of the head that this process has started."""
    return [p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::RayTrain")]


@pytest.mark.slow
def test_a_run_on_ray_is_the_one_of_other_ranks_whatever_happens_to_it(tmp_path: Path) -> None:
    student = make_tiny_student(tmp_path / "student")
    shards = write_shards(tmp_path / "shards", [toy_sample(i, 0.5 + 0.1 * i) for i in range(6)])

    def config(name: str, **parts: object) -> TrainConfig:
        run = {"save_every": 10, "log_every": 10}
        return toy_config(student, shards, tmp_path / name, steps=80, run=run, **parts)

    assert run_ranks(2, train_and_die, config("whole"), None, tmp_path / "log") == [0, 0]
    checkpoints = tmp_path / "run" / "checkpoints"
    with ray_head(cpus=2) as head:
        lines = end_of(start(head, config("wrong", heads={"experts": ["hubert"]}), tmp_path, workers=1), 2)
        assert lines == [
            f"error: {tmp_path / 'wrong'}: no targets of hubert; the shards have events, mel, pitch, prosody"
        ]

        stopped = start(head, config("run"), tmp_path)
        wait_until(lambda: any(checkpoints.glob("step-*")), stopped)
        stopped.send_signal(signal.SIGINT)
        lines = end_of(stopped, 130)
        assert lines[-1].endswith(" of 80; the same command goes on from there"), lines
        at = int(lines[-1].split()[3])
        assert (checkpoints / f"step-{at:08d}").is_dir()

        lost = start(head, config("run"), tmp_path)
        wait_until(lambda: any(int(p.name[5:]) > at for p in checkpoints.glob("step-*")), lost)
        ranks_here()[-1].kill()
        lines = end_of(lost, 0)
    assert lines[0] == f"resumed at step {at} of 80"
    assert lines[1] == "a worker was lost; all of them start anew"
    assert lines[2].startswith("resumed at step ")
    assert lines[3].startswith("finished: ")
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")
    assert not list(tmp_path.glob("*.ray"))


def test_there_is_no_such_cluster(tmp_path: Path) -> None:
    from coat.cli.on_ray.ranks import Workers
    from coat.cli.on_ray.train import train_on_ray
    from coat.manifests import RunError

    student = make_tiny_student(tmp_path / "student")
    shards = write_shards(tmp_path / "shards", [toy_sample(0)])
    with pytest.raises(RunError, match=r"no Ray cluster at 127\.0\.0\.1:1 "):
        train_on_ray(toy_config(student, shards, tmp_path / "run"), Workers(address="127.0.0.1:1"))
